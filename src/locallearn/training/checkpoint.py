"""Checkpoints that no kill, full disk or flipped byte can damage unnoticed.

A checkpoint is what `torch.save` writes, a zip archive, with the SHA-256 of all bytes before it as the archive's
comment: `torch.load` reads it as any other.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from locallearn._utils.atomic_files import write_whole
from locallearn._utils.errors import LocalLearnError

_DIGEST = 64


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; at any moment `path` is the old one or the new one, whole.

    Raises:
        LocalLearnError: the disk is full, or does not read back what was written; the old checkpoint is still there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    archive = bytearray(buffer.getvalue())
    archive[-2:] = _DIGEST.to_bytes(2, "little")  # a zip archive ends with the length of its comment
    write_whole(path, bytes(archive) + hashlib.sha256(archive).hexdigest().encode())


def keep_previous(path: Path, previous: Path) -> None:
    """Keep a checkpoint under a second name before another replaces it; at any moment `path` is there."""
    if not path.exists():
        return
    previous.unlink(missing_ok=True)
    try:
        os.link(path, previous)
    except OSError:  # not every file system has hard links
        shutil.copyfile(path, previous)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read and verify a checkpoint; its tensors are on the CPU.

    Raises:
        LocalLearnError: there is none, any byte of it differs from what was written, or it holds code.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise LocalLearnError(f"there is no checkpoint {path}.") from None
    archive, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(archive).hexdigest().encode() != digest:
        raise LocalLearnError(f"the checkpoint {path} is damaged: its bytes are not those that were written.")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # of several types; PyTorch's own message advises to run whatever code the file holds
        raise LocalLearnError(
            f"the checkpoint {path} is refused: it holds more than tensors, numbers and texts, or is no checkpoint."
        ) from None


def load_weights(network: nn.Module, weights: Mapping[str, Any], *, file: Path, name: str) -> None:
    """Load the weights of a file into a network.

    Args:
        network: takes the weights.
        weights: a state dict.
        file: where they come from, for the error.
        name: of the network, for the error.

    Raises:
        LocalLearnError: names or shapes differ.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise LocalLearnError(f"the weights in {file} do not fit {name}: has its code changed?") from error

"""Checkpoints that a kill, a full disk or a flipped byte cannot spoil unnoticed.

A checkpoint is what `torch.save` writes, a zip archive, with the SHA-256 of all bytes before it as the archive's
comment: `torch.load` reads it as any other.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from locallearn._errors import LocalLearnError

_DIGEST = 64


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write beside, flush, verify, rename: at any moment `path` is the old checkpoint or the new one, whole.

    Raises:
        LocalLearnError: the disk is full, or does not give back what was written; the old checkpoint is still there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    archive = bytearray(buffer.getvalue())
    archive[-2:] = _DIGEST.to_bytes(2, "little")  # a zip archive ends with the length of its comment
    content = bytes(archive) + hashlib.sha256(archive).hexdigest().encode()
    beside = path.with_name(path.name + ".new")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if beside.read_bytes() != content:
            raise LocalLearnError(f"{beside} does not read back as it was written: check the disk.")
        beside.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise LocalLearnError(
            f"the disk is full: {path} needs {len(content):,} bytes. Make room and go on with --resume"
            + (" from the checkpoint before it, which is whole." if path.exists() else ".")
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read and verify a checkpoint.

    Raises:
        LocalLearnError: there is none, or any byte of it differs from what was written.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise LocalLearnError(f"there is no checkpoint {path}.") from None
    archive, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(archive).hexdigest().encode() != digest:
        raise LocalLearnError(
            f"the checkpoint {path} is damaged: its bytes are not those that were written."
            " Use another one (best.pt beside it, or a copy)."
        )
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename last (folders cannot be opened on every system)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

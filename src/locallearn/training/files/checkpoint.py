"""Checkpoints that no kill, full disk or flipped byte can damage unnoticed.

A checkpoint is what `torch.save` writes, a zip archive, with the SHA-256 of all bytes before it as the archive's
comment: `torch.load` reads it as any other.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from locallearn._utils.atomic_files import machine_memory, regular_file, write_whole
from locallearn._utils.errors import LocalLearnError

Checkpoint = Literal["last", "previous", "best"]

FILES: Mapping[Checkpoint, str] = {"last": "last.pt", "previous": "last.prev.pt", "best": "best.pt"}
"""The checkpoints of a run: the latest, the one before it, and that of the best epoch."""

_DIGEST = 64
_COMMENT = _DIGEST.to_bytes(2, "little")
"""Before the digest: a zip archive ends with the length of its comment, and the comment."""
_DAMAGED = "is damaged: its bytes are not those that were written"
_FORMAT = 3
_ENTRIES: Mapping[str, type] = {
    "format": int,
    "net": dict,
    "average": dict,
    "optimizers": dict,
    "random": dict,
    "epoch": int,
    "step": int,
    "seconds": float,
    "sums": list,
    "seen": int,
    "skipped": list,
    "best": float,
}
"""What a checkpoint holds, with types. A change of it is another format."""


def save_checkpoint(state: dict[str, Any], path: Path, *, previous: Path | None = None) -> None:
    """Write a checkpoint; at any moment `path` is the old one or the new one, whole.

    Args:
        state: the entries, without `format`.
        path: the file.
        previous: where the checkpoint that was there before goes.

    Raises:
        LocalLearnError: the disk is full, or does not read back what was written, or an entry holds an object that
            would not be read again; the old checkpoint is still there.
    """
    buffer = _written({"format": _FORMAT, **state})
    if _objects_in(buffer):
        raise LocalLearnError(_unreadable(state))
    archive = bytearray(buffer.getvalue())
    archive[-2:] = _COMMENT
    if previous is not None and path.exists():
        link_checkpoint(path, previous)
    write_whole(path, bytes(archive) + hashlib.sha256(archive).hexdigest().encode())


def _written(state: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer


def _objects_in(written: io.BytesIO) -> list[str]:
    """Classes and functions that PyTorch refuses to read from a file."""
    written.seek(0)
    return sorted(get_unsafe_globals_in_checkpoint(written))


def _unreadable(state: Mapping[str, Any]) -> str:
    """Names what no checkpoint can hold: objects run code when they are read."""
    kinds = {entry: _objects_in(_written(value)) for entry, value in state.items()}
    entry = next(entry for entry, found in kinds.items() if found)
    where = {"net": "the network's state", "optimizers": "the optimizer's state"}.get(entry, entry)
    return (
        f"no checkpoint is written: {where} holds {' and '.join(kinds[entry])}, and a checkpoint can hold only numbers,"
        " text, tensors, lists and dictionaries. Keep anything else out of it."
    )


def digest_of(path: Path) -> str:
    """The SHA-256 that ends a checkpoint, by which one is told from another without reading it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _DIGEST))
        return file.read().decode(errors="replace")


def unusable(path: Path, fault: str, go_on: str = "") -> LocalLearnError:
    """The error about a checkpoint that cannot be used; it names those beside it that are whole.

    Args:
        path: the checkpoint.
        fault: what is wrong with it.
        go_on: how to use one of them, up to its name.
    """
    others = {name: file for name, file in FILES.items() if file != path.name}
    whole = {name: file for name, file in others.items() if not isinstance(_read(path.with_name(file)), str)}
    beside = f"; beside it lies {' and '.join(whole.values())}" if whole else ""
    how = f" ({go_on} {' or '.join(whole)})" if whole and go_on else ""
    return LocalLearnError(f"the checkpoint {path} {fault}{beside}{how}.")


def unresumable(path: Path, fault: str) -> LocalLearnError:
    """The same where training was to go on from it."""
    return unusable(path, fault, f"--resume {path.parent} --from")


def load_checkpoint(path: Path, error: Callable[[Path, str], LocalLearnError] = unusable) -> dict[str, Any]:
    """Read and verify a checkpoint; its tensors are on the CPU.

    Args:
        path: the file.
        error: makes the error of the file and what is wrong with it.

    Raises:
        LocalLearnError: there is none, any byte of it differs from what was written, or it holds something else.
    """
    state = _read(path)
    if isinstance(state, str):
        raise error(path, state)
    return state


def _read(path: Path) -> dict[str, Any] | str:
    """The entries of a checkpoint, or what is wrong with it."""
    if not path.exists():
        return "is missing"
    try:
        with regular_file(path, most=machine_memory()).open("rb") as file:
            file.seek(max(0, path.stat().st_size - len(_COMMENT) - _DIGEST))
            if not file.read().startswith(_COMMENT):  # before a sparse file, which may be endless, is read
                return _DAMAGED
            file.seek(0)
            content = file.read()
    except LocalLearnError as error:
        return f"cannot be read: {error}"
    archive, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(archive).hexdigest().encode() != digest:
        return _DAMAGED
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # PyTorch's own words advise to run whatever code the file holds
        return "holds more than numbers and tensors, which locallearn never writes"
    return _fault(state) or state


def trained_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a checkpoint's network as they are evaluated: their averages, where the run has them."""
    return {**state["net"], **state["average"]}


def backbone_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the backbone alone, by its own names."""
    weights = trained_weights(state).items()
    return {name.removeprefix("model."): part for name, part in weights if name.startswith("model.")}


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
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:  # the last ones of other things than tensors
        raise LocalLearnError(f"the weights in {file} do not fit {name}: has its code changed?") from error


def _fault(state: Any) -> str | None:
    if not isinstance(state, dict):
        return f"holds a {type(state).__name__}, no state of training"
    if state.get("format") != _FORMAT:
        return f"has the format {state.get('format')}, not {_FORMAT}: another version of locallearn wrote it"
    if different := sorted(map(str, state.keys() ^ _ENTRIES.keys())):
        return f"{'has' if different[0] in state else 'lacks'} the entry {different[0]!r}, unlike any of locallearn's"
    for name, kind in _ENTRIES.items():
        if not isinstance(state[name], kind):
            return f"has a {type(state[name]).__name__} as {name}"
    for name, kind in (("net", str), ("average", str), ("sums", float), ("skipped", str)):
        if not all(isinstance(part, kind) for part in state[name]):
            return f"has other things than those of type {kind.__name__} in {name}"
    return None


def link_checkpoint(path: Path, other: Path) -> None:
    """Give a checkpoint another name besides, in place of what has that name."""
    beside = other.with_name(other.name + ".new")
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError:  # a file system without links
        shutil.copyfile(path, beside)
    beside.replace(other)

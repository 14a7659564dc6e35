"""Write files that are never half there, and read files that may be damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.optional_imports import optional


def file_name(text: str) -> str:
    """A text as the name of a file: other characters than letters, digits and -_=. become underscores."""
    return "".join(c if c.isalnum() or c in "-_=." else "_" for c in text).strip("_")


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, flush, read back, rename: at any moment `path` is the old file or the new one, whole.

    Raises:
        LocalLearnError: the disk is full, or does not give back what was written; the old file is still there.
    """
    beside = path.with_name(path.name + ".new")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if beside.read_bytes() != content:
            raise LocalLearnError(f"{beside} does not read back as it was written: check the disk.")
        beside.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        if not is_disk_full(error):
            raise
        old = "; the file that was there is whole" if path.exists() else ""
        raise LocalLearnError(f"the disk is full: {path} needs {len(content):,} bytes. Make room{old}.") from error
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON for people and machines, as `write_whole` does."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in a file of JSON.

    Raises:
        LocalLearnError: it is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:  # of the text's encoding too
        raise _damaged(path, "JSON", error) from error


def sha256(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_hashed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, with the SHA-256 of its content under `sha256`."""
    write_json(path, {**value, "sha256": _content_hash(value)})


def read_hashed_json(path: Path, *, remedy: str) -> dict[str, Any]:
    """The mapping that `write_hashed_json` wrote. Layout and order may have changed since, values may not.

    A file without a hash is refused too: a flipped bit in the name `sha256` would pass for an earlier version's file.

    Args:
        path: the file.
        remedy: what to do about a refused file, for the error.

    Raises:
        LocalLearnError: it is no JSON, has no hash, or another content.
    """
    value = read_json(path)
    if not isinstance(value, dict) or "sha256" not in value:
        raise LocalLearnError(f"{path} names no SHA-256 of its content: an earlier version wrote it. {remedy}")
    if value.pop("sha256") != _content_hash(value):
        raise LocalLearnError(f"{path} is damaged: its content has another SHA-256 than it names. {remedy}")
    return value


def _content_hash(value: Mapping[str, Any]) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode())


def read_yaml(path: Path) -> Any:
    """The value in a file of YAML.

    Raises:
        LocalLearnError: it is no YAML.
    """
    yaml = optional("yaml")
    try:
        return yaml.safe_load(path.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise _damaged(path, "YAML", error) from error


def regular_file(path: Path, *, most: int) -> Path:
    """The path itself, of a regular file that is not too large. Nothing is opened, so a FIFO cannot make it wait.

    Args:
        path: a file, or a link to one.
        most: bytes that it may have; those that a sparse file leaves out count.

    Raises:
        LocalLearnError: it is missing, larger, or a folder, FIFO, socket or device.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise LocalLearnError(f"{path.name} cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise LocalLearnError(f"{path.name} is no regular file")
    if status.st_size > most:
        raise LocalLearnError(f"{path.name} has {status.st_size:,} bytes, more than {most:,}")
    return path


def _damaged(path: Path, kind: str, error: Exception) -> LocalLearnError:
    return LocalLearnError(f"{path} is damaged: it is no {kind} ({reason_of(error)}). Put a copy of it back.")


def is_disk_full(error: Exception) -> bool:
    """Whether an operation failed because the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut (not every system opens folders)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

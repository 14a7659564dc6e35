"""Writing files that are never half there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from locallearn._errors import LocalLearnError


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
        kept = "; the file that was there is whole" if path.exists() else ""
        raise LocalLearnError(f"the disk is full: {path} needs {len(content):,} bytes. Make room{kept}.") from error
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON for people and machines, as `write_whole` does."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def is_disk_full(error: Exception) -> bool:
    """Whether an operation failed because no room is left, on the disk or in the user's share of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut (not every system opens folders)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""Write files that are never half there, and read files that may be damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.optional_imports import optional

_LARGEST_SETTINGS = 2**18  # bytes
_DEEPEST_SETTINGS = 14  # six rules in one another; each level doubles the parser's time


_LONGEST_NAME = 200
"""Bytes, so that a date or an ending can follow; a character has at most four."""

_NO_SPACE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.EFBIG: "the file is larger than the system allows (ulimit -f)",
}


def file_name(text: str) -> str:
    """A text as the name of a file: other characters than letters, digits and -_=. become underscores.

    Of a long text, the beginning and a hash of the whole: file systems allow 255 bytes.
    """
    name = "".join(c if c.isalnum() or c in "-_=." else "_" for c in text).strip("_")
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME // 4]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, flush, read back, rename: at any moment `path` is the old file or the new one, whole.

    Raises:
        LocalLearnError: the disk is full, the file too large, or it does not read back as it was written; the old file
            is still there.
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
        reason = lacks_space(error)
        if reason is None:
            raise
        old = "; the file that was there is whole" if path.exists() else ""
        raise LocalLearnError(f"{reason}: {path} needs {len(content):,} bytes. Make room{old}.") from error
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON for people and machines, as `write_whole` does."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path, *, most: int = 2**24) -> Any:
    """The value in a file of JSON.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        LocalLearnError: it is no JSON, or no such file.
    """
    text = _text(path, "JSON", most)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "JSON", error) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Settings in a file of YAML.

    Raises:
        LocalLearnError: it is no YAML, no such file, or holds something else; also for aliases, by which a short file
            becomes an endless one.
    """
    yaml = optional("yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text, depth = _text(path, "YAML", _LARGEST_SETTINGS), 0
    try:
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST_SETTINGS:
                raise ValueError("it has an alias" if depth <= _DEEPEST_SETTINGS else "it is nested too deep")
        values = yaml.load(text, Loader=_unique_keys(loader))
    except (ValueError, yaml.YAMLError) as error:
        raise _damaged(path, "YAML", error) from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise LocalLearnError(f"{path} is damaged: it holds no settings, such as epochs: 10. Put a copy of it back.")
    return values


def _unique_keys(loader: Any) -> Any:
    """A YAML loader that refuses a key given twice, of which YAML's own would drop the first."""

    class UniqueKeys(loader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise ValueError(f"{twice[0]} is given twice")
            return super().construct_mapping(node, deep=deep)

    return UniqueKeys


def _text(path: Path, kind: str, most: int) -> str:
    try:
        return regular_file(path, most=most).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, kind, error) from error
    except LocalLearnError as error:
        raise LocalLearnError(f"{path} is no file of {kind}: {error}.") from error


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
        raise LocalLearnError(f"{path.name} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise LocalLearnError(f"{path.name} is no regular file")
    if status.st_size > most:
        raise LocalLearnError(f"{path.name} has {status.st_size:,} bytes, more than {most:,}")
    return path


def machine_memory() -> int:
    """Bytes of the machine's memory; more than any has, where the system does not tell."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**50


def _damaged(path: Path, kind: str, error: Exception) -> LocalLearnError:
    return LocalLearnError(f"{path} is damaged: it is no {kind} ({reason_of(error)}). Put a copy of it back.")


def lacks_space(error: Exception) -> str | None:
    """Why there is no room for a file, if an operation failed for that: a full disk or share of it, or a limit."""
    return _NO_SPACE.get(error.errno or 0) if isinstance(error, OSError) else None


def flush_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut (not every system opens folders)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""One process at a time in a run folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from locallearn._utils.atomic_files import read_json, write_json
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.outputs import make_folder

LOCK_FILES = (".lock", "owner.json")


class InUseError(LocalLearnError):
    """Another process holds the folder."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, and make the folder if it is not there.

    The system frees the lock of a process that died, so none is ever stale; `owner.json` only names the holder.

    Raises:
        InUseError: another process holds it.
        LocalLearnError: the folder cannot be made.
    """
    make_folder(folder)
    lock, owner = FileLock(folder / LOCK_FILES[0], blocking=False), folder / LOCK_FILES[1]
    try:
        lock.acquire()
    except Timeout as error:
        raise InUseError(f"{folder} is in use{_by(owner)}: wait for it, stop it, or choose another folder.") from error
    try:
        write_json(owner, {"host": platform.node(), "pid": os.getpid()})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _by(owner: Path) -> str:
    try:
        holder = read_json(owner)
        return f" by process {holder['pid']} on {holder['host']}"
    except (OSError, LocalLearnError, KeyError, TypeError):  # it is about to be written, or removed
        return ""

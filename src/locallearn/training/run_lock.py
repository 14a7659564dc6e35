"""One process at a time in a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.optional_imports import optional

LOCK = "run.lock"
"""The file that is there while a process trains; it holds the process's number and the name of its machine."""

_PATIENCE = 0.5  # seconds: time to take over the lock of a process that was killed


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder. The lock of a process that is gone from this machine is taken over.

    Raises:
        LocalLearnError: another process holds it.
    """
    filelock = optional("filelock")
    file = folder / LOCK
    lock = filelock.SoftFileLock(file, timeout=_PATIENCE)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise LocalLearnError(
            f"{folder} is in use by {_holder(file)}: wait for it, stop it, or choose another folder. If that process is"
            f" gone, delete {file}."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _holder(file: Path) -> str:
    try:
        process, machine, *_ = file.read_text().split()
    except (OSError, ValueError):
        return "another process"
    return f"process {process} on {machine}"

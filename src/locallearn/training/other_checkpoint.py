"""Where a checkpoint cannot be used, names another one of its run that can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from locallearn._utils.errors import LocalLearnError
from locallearn.training.run_folder import CheckpointName, RunFolder
from locallearn.training.run_state import load_state


@contextmanager
def offering_another(file: Path) -> Iterator[None]:
    """Add another checkpoint of the run that is whole, and how to go on from it, to an error about this one."""
    try:
        yield
    except LocalLearnError as error:
        raise LocalLearnError(f"{error} {_offer(file)}") from error


def _offer(file: Path) -> str:
    folder = RunFolder(file.parent)
    for name in get_args(CheckpointName):
        other = folder.checkpoint(name)
        if other != file and _is_whole(other):
            return f"{other} is whole: --resume {folder.path} --from {name} goes on from it."
    return "No other checkpoint of the run is whole: train anew in another folder, or put a copy of the file back."


def _is_whole(file: Path) -> bool:
    try:
        load_state(file)
    except LocalLearnError:
        return False
    return True

"""Where results go: made, or refused, before anything is computed for them."""

from __future__ import annotations

import os
from pathlib import Path

from locallearn._utils.errors import LocalLearnError


def make_folder(folder: Path, option: str = "--out") -> None:
    """Make a folder and those it lies in, unless it is there.

    Raises:
        LocalLearnError: the system refuses it, or to write there; the sentence says why, and names the option.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalLearnError(
            f"the folder {folder} cannot be made ({error.strerror}): choose another one by {option}."
        ) from error
    if not os.access(folder, os.W_OK):
        raise LocalLearnError(
            f"you may not write to the folder {folder}: change its permissions, or choose another one by {option}."
        )


def refuse_unwritable(path: Path, example: str) -> None:
    """Refuse a file that cannot be written.

    Args:
        path: the file.
        example: a name that a file may have, for the error about a folder.

    Raises:
        LocalLearnError: it is a folder, lies in none, or one may not write there.
    """
    folder = path.parent
    if path.is_dir():
        raise LocalLearnError(f"{path} is a folder: give the name of a file, such as {path / example}.")
    if not folder.is_dir():
        raise LocalLearnError(f"{path} cannot be written, since {folder} is no folder: make it first.")
    if not os.access(folder, os.W_OK):
        raise LocalLearnError(f"{path} cannot be written, since you may not write to {folder}: choose another file.")

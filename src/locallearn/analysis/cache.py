"""Results in a run folder, which answer the same question again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.hashed_json import read_hashed_json, write_hashed_json

_QUESTION = "question"
_FORMAT = 1
"""Of all results; a change of what a file holds is another format."""

Say = Callable[[str], None]
"""Told a sentence for a person."""


def silent(sentence: str) -> None:
    """A `Say` that does nothing."""


def answered(
    file: Path, question: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]], *, say: Say
) -> dict[str, Any]:
    """The result in a file if it answers this question; otherwise it is computed, and the file is written.

    Args:
        file: the result, a JSON file with a hash.
        question: all that the result depends on, as values for JSON: hash of the checkpoint, settings.
        compute: computes the result, as values for JSON.
        say: told why a file that is there is not used, or why the result cannot be stored.
    """
    question = {"format": _FORMAT, **question}
    try:
        known = read_hashed_json(file, remedy="it is computed again") if file.exists() else None
    except LocalLearnError:
        say(f"{file} is damaged: it is computed again.")
        known = None
    if known is not None:
        if known.get(_QUESTION) == question:
            return known
        say(f"{file} is of another checkpoint, other settings or another version: it is computed again.")
    result = {_QUESTION: question, **compute()}
    try:
        file.parent.mkdir(exist_ok=True)
        write_hashed_json(file, result)
    except (OSError, LocalLearnError) as error:
        say(f"{file} cannot be written ({reason_of(error)}), so the result is not stored.")
    return result

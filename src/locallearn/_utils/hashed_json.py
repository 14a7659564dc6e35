"""JSON files that hold the SHA-256 of their own content, so that no changed byte passes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import read_json, write_json
from locallearn._utils.errors import LocalLearnError

_KEY = "content_sha256"


def write_hashed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping, with the hash of its entries as one more."""
    write_json(path, {**value, _KEY: _digest(value)})


def read_hashed_json(path: Path, *, remedy: str) -> dict[str, Any]:
    """The mapping in a file that `write_hashed_json` wrote.

    A file without the hash is refused too: else a damaged name of the entry would let all other damage pass.

    Args:
        path: the file.
        remedy: what to do if it is damaged, the end of the sentence.

    Raises:
        LocalLearnError: it is damaged.
    """
    value = read_json(path)
    digest = value.pop(_KEY, None) if isinstance(value, dict) else None
    if digest != _digest(value):
        raise LocalLearnError(f"{path} is damaged, or was changed or written by another program: {remedy}.")
    return value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

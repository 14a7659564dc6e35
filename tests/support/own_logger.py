"""A logger of a user's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from locallearn import LocalLearnError
from locallearn.training import Logger


class Mine(Logger):
    """Writes down what it is told."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, epoch: int) -> None:
        self.file = folder / "mine.jsonl"
        self._write("start", epoch, settings["epochs"])

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._write("log", epoch, dict(metrics))

    def close(self) -> None:
        self._write("close")

    def _write(self, *what: object) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(what) + "\n")


class Nowhere(Mine):
    """Does not start."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise LocalLearnError("there is nowhere to log to.")

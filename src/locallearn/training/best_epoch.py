"""Which epoch of a run is its best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def choosing_accuracy(row: Mapping[str, Any]) -> float:
    """The accuracy by which epochs are compared: on validation images, or on the test images where there are none.

    Args:
        row: metrics of an epoch. Those without an accuracy, as of a detector, are never better than others.
    """
    return row.get("validation_accuracy", row.get("test_accuracy", -1.0))


def best_epoch(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The metrics of the best epoch, whose checkpoint is `best.pt`; the first one of several."""
    return max(rows, key=choosing_accuracy)


def chosen_on(rows: Sequence[Mapping[str, Any]]) -> str:
    """On which images the best epoch is chosen: "validation" or "test"."""
    return "validation" if all("validation_accuracy" in row for row in rows) else "test"

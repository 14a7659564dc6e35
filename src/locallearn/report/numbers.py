"""A comparison as plain numbers, for JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from locallearn.report.groups import Group, baseline_of, spread
from locallearn.report.runs import RESULTS, Run
from locallearn.training import chosen_on


def numbers(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """The numbers of each group, by its label.

    Accuracies are shares of the test images: the mean over seeds, their sample standard deviation, and each. The
    distance from BP is in percentage points. Seconds are the mean over seeds of the median epoch.
    """
    bp = baseline_of(groups)
    return {
        group.label: {
            "seeds": [run.settings.seed for run in group.runs],
            "folders": [str(run.path) for run in group.runs],
            "test_accuracy": group.accuracy.mean,
            "test_accuracy_deviation": group.accuracy.deviation,
            "test_accuracies": [run.accuracy for run in group.runs],
            "best_accuracy": group.best_accuracy.mean,
            "best_chosen_on": chosen_on(group.runs[0].rows),
            "points_behind_bp": None if bp is None else 100 * (bp.accuracy.mean - group.accuracy.mean),
            **_top5(group),
            "seconds_per_epoch": group.seconds.mean,
            **{name: group.result(name) for name in RESULTS},
        }
        for group in groups
    }


def rows_of_runs(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """One row for each run, with every value."""
    for group in groups:
        for run in group.runs:
            yield {
                "rule": group.label,
                "seed": run.settings.seed,
                "epochs": len(run.rows),
                "test_accuracy": run.accuracy,
                "best_accuracy": run.best_accuracy,
                "seconds_per_epoch": spread([row["seconds"] for row in run.rows]).mean,
                **{name: run.result.get(name) for name in RESULTS},
                "folder": str(run.path),
            }


def _top5(group: Group) -> dict[str, float]:
    def last(run: Run) -> float | None:
        return run.rows[-1].get("test_top5_accuracy")

    values = [value for run in group.runs if (value := last(run)) is not None]
    return {"test_top5_accuracy": spread(values).mean} if len(values) == len(group.runs) else {}

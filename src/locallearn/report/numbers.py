"""A comparison as plain numbers, for JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from locallearn.report.groups import Group, baseline_of, differing_conditions
from locallearn.report.runs import RESULTS
from locallearn.training import chosen_on


def numbers(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """The numbers of each group, by its label.

    Accuracies are shares of the test images: the mean over seeds, their sample standard deviation (None of one seed),
    and each. Epochs are those that all seeds have. The distance from BP is in percentage points, None without a BP on
    the same data, network, epochs and batch. Seconds are the mean over seeds of the median epoch.
    """
    different = differing_conditions(groups)
    return {
        group.label: {
            "seeds": [run.settings.seed for run in group.runs],
            "folders": [str(run.path) for run in group.runs],
            "settings_that_differ": {name: values[index] for name, values in different.items()},
            "epochs": group.epochs,
            "finished": group.finished,
            "test_accuracy": group.accuracy.mean,
            "test_accuracy_deviation": group.accuracy.deviation if group.accuracy.runs > 1 else None,
            "test_accuracies": [run.accuracy for run in group.runs],
            "best_accuracy": group.best_accuracy.mean,
            "best_chosen_on": chosen_on(group.runs[0].rows),
            "points_behind_bp": None if bp is None else group.points_behind(bp),
            **({} if group.top5_accuracy is None else {"test_top5_accuracy": group.top5_accuracy.mean}),
            "seconds_per_epoch": group.seconds.mean,
            **{name: group.result(name) for name in RESULTS},
        }
        for index, (group, bp) in enumerate((group, baseline_of(group, groups)) for group in groups)
    }


def rows_of_runs(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """One row for each run, with every value."""
    for group in groups:
        for run in group.runs:
            yield {
                "rule": group.label,
                "seed": run.settings.seed,
                "epochs": len(run.rows),
                "finished": run.finished,
                "test_accuracy": run.accuracy,
                "best_accuracy": run.best_accuracy,
                "seconds_per_epoch": run.seconds_per_epoch,
                **{name: run.result.get(name) for name in RESULTS},
                "folder": str(run.path),
            }

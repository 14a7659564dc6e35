"""A comparison as plain numbers, for JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from locallearn.report.groups import Group, baseline_of, differing_conditions, setting_text, spread
from locallearn.report.runs import RESULTS
from locallearn.training import best_epoch, chosen_on, rule_text


def numbers(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """The numbers of each group, by its label.

    Accuracies are shares of the images: the mean over seeds, their sample standard deviation (None of one seed), and
    each. Those of validation images, where there are some, are of the last epoch and of the best one. Epochs are those
    that all seeds have. The distance from BP is in percentage points, None without a BP on the same data, network,
    epochs and batch. Seconds are the mean over seeds of the median epoch.
    """
    different = differing_conditions(groups)
    return {
        group.label: {
            "seeds": [run.settings.seed for run in group.runs],
            "folders": [str(run.path.absolute()) for run in group.runs],
            "settings_that_differ": {name: values[index] for name, values in different.items()},
            "epochs": group.epochs,
            "finished": group.finished,
            **_accuracies("test", [run.accuracy for run in group.runs]),
            **_accuracies("best", [run.best_accuracy for run in group.runs]),
            "best_chosen_on": chosen_on(group.runs[0].rows),
            **_validation_accuracies(group),
            "points_behind_bp": None if bp is None else group.points_behind(bp),
            **({} if group.top5_accuracy is None else {"test_top5_accuracy": group.top5_accuracy.mean}),
            "seconds_per_epoch": group.seconds.mean,
            **{name: group.result(name) for name in RESULTS},
        }
        for index, (group, bp) in enumerate((group, baseline_of(group, groups)) for group in groups)
    }


def _accuracies(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Mean, deviation and each."""
    own = spread(values)
    deviation = own.deviation if own.runs > 1 else None
    return {f"{name}_accuracy": own.mean, f"{name}_accuracy_deviation": deviation, f"{name}_accuracies": list(values)}


def _validation_accuracies(group: Group) -> dict[str, Any]:
    """Those of the last epoch, and of the best one; none unless all runs have validation images."""
    if any(chosen_on(run.rows) == "test" for run in group.runs):
        return {}
    last = [run.rows[-1]["validation_accuracy"] for run in group.runs]
    best = [best_epoch(run.rows)["validation_accuracy"] for run in group.runs]
    return _accuracies("validation", last) | _accuracies("best_validation", best)


def rows_of_runs(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """One row for each run, with every value.

    The distance from BP is that from BP's mean over seeds, so that its mean over the runs of a group is the group's.
    A column for each setting, beside rule and seed, by which groups differ begins with `setting_`. The label is the
    group's in all other formats.
    """
    different = differing_conditions(groups)
    for index, group in enumerate(groups):
        bp = baseline_of(group, groups)
        for run in group.runs:
            yield {
                "rule": rule_text(run.settings.rule),
                "label": group.label,
                "seed": run.settings.seed,
                "epochs": len(run.rows),
                "finished": run.finished,
                "test_accuracy": run.accuracy,
                "points_behind_bp": None if bp is None else 100 * (bp.accuracy.mean - run.accuracy),
                "best_accuracy": run.best_accuracy,
                "best_chosen_on": chosen_on(run.rows),
                "validation_accuracy": run.rows[-1].get("validation_accuracy"),
                "seconds_per_epoch": run.seconds_per_epoch,
                **{name: run.result.get(name) for name in RESULTS},
                **{f"setting_{name}": setting_text(values[index]) for name, values in different.items()},
                "folder": str(run.path),
            }

"""Runs that differ by seed alone, as one line of the comparison."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from locallearn._utils.errors import LocalLearnError
from locallearn.report.runs import Change, Run
from locallearn.rules import BP
from locallearn.training import NO_RESULT, TrainSettings, plain_settings, rule_text
from locallearn.training.settings.text import differences_in

IN_A_GROUP = ("seed", *NO_RESULT)
"""Settings by which runs of one group may differ: the seed, and those that no result depends on."""

_LIKE_BP = ("data", "model", "image_size", "epochs", "batch", "train_images")
"""Settings that a group has in common with the backpropagation that it is measured against."""

_CHANGED = "changed by --resume"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and standard deviation over runs.

    Attributes:
        mean: the mean.
        deviation: the sample standard deviation; 0 of a single run, which has none.
        runs: number of runs.
    """

    mean: float
    deviation: float
    runs: int

    @property
    def percent(self) -> str:
        """A share in percent, such as `70.23 ± 0.12 %`; of a single run without a deviation."""
        deviation = f" ± {100 * self.deviation:.2f}" if self.runs > 1 else ""
        return f"{100 * self.mean:.2f}{deviation} %"


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of some values."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(mean=statistics.fmean(values), deviation=deviation, runs=len(values))


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Runs that differ by seed alone.

    Attributes:
        label: the rule, and the settings that tell it from other groups.
        runs: the runs.
        look: number of its colour, dashes and marker.
    """

    label: str
    runs: tuple[Run, ...]
    look: int

    @property
    def settings(self) -> TrainSettings:
        """Of the first run."""
        return self.runs[0].settings

    @property
    def finished(self) -> bool:
        """Whether all of its runs are."""
        return all(run.finished for run in self.runs)

    @property
    def epochs(self) -> int:
        """Epochs that all of its runs have."""
        return min(len(run.rows) for run in self.runs)

    @cached_property
    def accuracy(self) -> Spread:
        """Test accuracy after the last epoch."""
        return spread([run.accuracy for run in self.runs])

    @cached_property
    def best_accuracy(self) -> Spread:
        """Test accuracy after each run's best epoch."""
        return spread([run.best_accuracy for run in self.runs])

    @cached_property
    def seconds(self) -> Spread:
        """Median time of an epoch."""
        return spread([run.seconds_per_epoch for run in self.runs])

    @cached_property
    def top5_accuracy(self) -> Spread | None:
        """Top-5 accuracy after the last epoch; None unless all of its runs have one."""
        values = [value for run in self.runs if (value := run.rows[-1].get("test_top5_accuracy")) is not None]
        return spread(values) if len(values) == len(self.runs) else None

    def points_behind(self, bp: Group) -> float:
        """By how many percentage points the test accuracy is below that of backpropagation."""
        return 100 * (bp.accuracy.mean - self.accuracy.mean)

    def result(self, name: str) -> float | None:
        """A number in `result.json` that all seeds share, such as the peak memory; None of an unfinished run."""
        values = [run.result.get(name) for run in self.runs]
        numbers = [value for value in values if isinstance(value, int | float)]
        return numbers[0] if numbers else None

    def over_epochs(self, metric: Callable[[Run], Sequence[float]]) -> list[list[float]]:
        """For each epoch the values of all runs.

        Args:
            metric: from a run to its values, one for each epoch.
        """
        columns = [metric(run)[: self.epochs] for run in self.runs]
        return [list(values) for values in zip(*columns, strict=True)]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs as groups, in the order in which they are given; runs of one group differ by seed alone.

    A run that went on with other settings is in another group than one that had these from the start.

    Raises:
        LocalLearnError: two runs of a group have one seed.
    """
    settings: list[dict[str, Any]] = []
    members: list[list[Run]] = []
    for run in runs:
        if (own := _without(settings_of(run), IN_A_GROUP)) not in settings:
            settings.append(own)
            members.append([])
        members[settings.index(own)].append(run)
    for own in members:
        _refuse_same_seed(own)
    labels = _labels([own[0] for own in members])
    return [
        Group(label=label, runs=tuple(own), look=look)
        for look, (label, own) in enumerate(zip(labels, members, strict=True))
    ]


def _refuse_same_seed(runs: Sequence[Run]) -> None:
    seen: dict[int, Run] = {}
    for run in runs:
        if (other := seen.setdefault(run.settings.seed, run)) is not run:
            raise LocalLearnError(
                f"{other.path} and {run.path} have the same settings and the same seed, {run.settings.seed}, which"
                " counts once: leave one out."
            )


def bp_conditions(group: Group) -> tuple[Any, ...]:
    """What a group has in common with the backpropagation that it is measured against: data, network, epochs ..."""
    return tuple(getattr(group.settings, name) for name in _LIKE_BP)


def bp_conditions_text(group: Group, groups: Sequence[Group]) -> str:
    """The data set, and what else of `bp_conditions` differs among groups."""
    different = [len(set(values)) > 1 for values in zip(*map(bp_conditions, groups), strict=True)]
    named = zip(_LIKE_BP, bp_conditions(group), different, strict=True)
    return ", ".join(
        str(value) if name in ("data", "model") else f"{name} {value}"
        for name, value, differs in named
        if differs or name == "data"
    )


def baseline_of(group: Group, groups: Sequence[Group]) -> Group | None:
    """The backpropagation that a group is measured against, or None.

    It has the same data, network, image size, epochs, batch and training images; of several, the one with the most
    other settings in common. That of backpropagation is itself.
    """
    alike = [
        other
        for other in groups
        if isinstance(other.settings.rule, BP) and bp_conditions(other) == bp_conditions(group)
    ]
    return min(alike, key=lambda bp: len(differing_settings([group.runs[0], bp.runs[0]])), default=None)


def differing_conditions(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Names of the settings, beside rule and seed, by which results of groups differ, to the value of each group."""
    return _without(differing_settings([group.runs[0] for group in groups]), ("rule", *IN_A_GROUP))


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Names of the settings that differ, to the value of each run."""
    values = [settings_of(run) for run in runs]
    columns = {name: [one[name] for one in values] for name in values[0]}
    return {name: own for name, own in columns.items() if any(value != own[0] for value in own)}


def common_settings(runs: Sequence[Run]) -> dict[str, Any]:
    """Names and values of the settings that all runs share."""
    different = differing_settings(runs)
    return {name: value for name, value in settings_of(runs[0]).items() if name not in different}


def setting_text(value: Any) -> str:
    """The value of a setting in a line: a class as it is called, a list by its items."""
    if isinstance(value, dict) and "class_path" in value:
        settings = ", ".join(f"{name}={setting_text(part)}" for name, part in value["init_args"].items())
        return f"{value['class_path'].rpartition('.')[2]}({settings})"
    if isinstance(value, list):
        return ", ".join(map(setting_text, value)) or "none"
    return str(value)


def settings_of(run: Run) -> dict[str, Any]:
    """All settings of a run by their names, and those that changed when it went on."""
    rule = {"rule": rule_text(run.settings.rule)}
    return plain_settings(run.settings) | rule | {_CHANGED: list(map(_change_text, run.changes))}


def _without(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _change_text(change: Change) -> str:
    """Such as `epochs changed from 10 to 20 at epoch 11`; of a class with other settings, those."""
    step = f", step {change.step + 1}" if change.step else ""
    parts = differences_in(change.setting, change.before, change.now)
    texts = (f"{name} changed from {setting_text(before)} to {setting_text(now)}" for name, before, now in parts)
    return f"{' and '.join(texts)} at epoch {change.epoch}{step}"


def _labels(runs: Sequence[Run]) -> list[str]:
    """The rule of each run; where others have the same one, the settings in which these differ; and what changed."""
    values = [_without(settings_of(run), IN_A_GROUP) for run in runs]
    labels = []
    for own in values:
        same = [other for other in values if other["rule"] == own["rule"]]
        different = [name for name in own if name != _CHANGED and any(other[name] != own[name] for other in same)]
        settings = (f"{name} {setting_text(own[name])}" for name in different)
        labels.append(", ".join([own["rule"], *settings, *own[_CHANGED]]))
    return labels

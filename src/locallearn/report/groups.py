"""Runs that differ by seed alone, as one line of the comparison."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from locallearn.report.runs import Run
from locallearn.rules import BP
from locallearn.training import NO_RESULT, TrainSettings, plain_settings, rule_text

_IN_A_GROUP = ("seed", *NO_RESULT)
"""Settings by which runs of one group may differ: the seed, and those that no result depends on."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and standard deviation over runs.

    Attributes:
        mean: the mean.
        deviation: the sample standard deviation; 0 of a single run.
        runs: number of runs.
    """

    mean: float
    deviation: float
    runs: int


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
        return spread([statistics.median(row["seconds"] for row in run.rows) for run in self.runs])

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
    """Runs as groups, in the order in which they are given; runs of one group differ by seed alone."""
    gathered: dict[str, list[Run]] = {}
    for run in runs:
        gathered.setdefault(repr(_settings_of(run, without=_IN_A_GROUP)), []).append(run)
    members = list(gathered.values())
    labels = _labels([own[0] for own in members])
    return [
        Group(label=label, runs=tuple(own), look=look)
        for look, (label, own) in enumerate(zip(labels, members, strict=True))
    ]


def baseline_of(groups: Sequence[Group]) -> Group | None:
    """The first group that trained by backpropagation, or None."""
    return next((group for group in groups if isinstance(group.settings.rule, BP)), None)


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Names of the settings that differ, to the value of each run."""
    values = [_settings_of(run) for run in runs]
    columns = {name: [one[name] for one in values] for name in values[0]}
    return {name: own for name, own in columns.items() if any(value != own[0] for value in own)}


def common_settings(runs: Sequence[Run]) -> dict[str, Any]:
    """Names and values of the settings that all runs share."""
    different = differing_settings(runs)
    return {name: value for name, value in _settings_of(runs[0]).items() if name not in different}


def setting_text(value: Any) -> str:
    """The value of a setting in a line: a class as it is called, a list by its items."""
    if isinstance(value, dict) and "class_path" in value:
        settings = ", ".join(f"{name}={setting_text(part)}" for name, part in value["init_args"].items())
        return f"{value['class_path'].rpartition('.')[2]}({settings})"
    if isinstance(value, list):
        return ", ".join(map(setting_text, value))
    return str(value)


def _settings_of(run: Run, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    values = plain_settings(run.settings) | {"rule": rule_text(run.settings.rule)}
    return {name: value for name, value in values.items() if name not in without}


def _labels(runs: Sequence[Run]) -> list[str]:
    """The rule of each run; where others have the same one, also the settings in which these differ."""
    values = [_settings_of(run, without=_IN_A_GROUP) for run in runs]
    labels = []
    for own in values:
        same = [other for other in values if other["rule"] == own["rule"]]
        different = [name for name in own if any(other[name] != own[name] for other in same)]
        labels.append(", ".join([own["rule"], *(f"{name} {setting_text(own[name])}" for name in different)]))
    return labels

"""Run folders, read for a comparison."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import read_json
from locallearn._utils.errors import LocalLearnError
from locallearn.report.analyses import Analyses, read_analyses
from locallearn.training import RunFolder, TrainSettings, best_epoch
from locallearn.training.files.data_card import DataCard
from locallearn.training.trained import data_card_of

RESULTS = ("peak_activation_bytes", "backbone_parameters", "auxiliary_parameters")
"""Numbers of `result.json` that runs of all seeds share."""

_METRICS = ("lr", "train_loss", "losses", "seconds", "test_accuracy")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting that changed when a run went on.

    Attributes:
        setting: its name.
        before, now: its values, as of `plain_settings`.
        epoch: the first one that has the new value, from 1.
        step: within this epoch, from 0, likewise.
    """

    setting: str
    before: Any
    now: Any
    epoch: int
    step: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run of `locallearn train`, finished or not.

    Attributes:
        path: the run folder.
        settings: all settings.
        card: classes, shape and normalisation of the images.
        rows: metrics of each epoch, as in `Fit`.
        result: what `result.json` holds; empty of an unfinished run.
        environment: what `environment.json` holds; empty if it was removed.
        analyses: what `locallearn analyze` left.
        changes: settings that changed when it went on; `settings` are the last ones.
    """

    path: Path
    settings: TrainSettings
    card: DataCard
    rows: tuple[Mapping[str, Any], ...]
    result: Mapping[str, Any]
    environment: Mapping[str, Any]
    analyses: Analyses
    changes: tuple[Change, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether all epochs are over, or training stopped early."""
        return len(self.rows) >= self.settings.epochs or self.result.get("stopped_early") is True

    @property
    def accuracy(self) -> float:
        """Test accuracy after the last epoch."""
        return self.rows[-1]["test_accuracy"]

    @property
    def best_accuracy(self) -> float:
        """Test accuracy after the best epoch."""
        return best_epoch(self.rows)["test_accuracy"]

    @property
    def seconds_per_epoch(self) -> float:
        """Time of the median epoch."""
        return statistics.median(row["seconds"] for row in self.rows)


def read_run(path: Path, settings: TrainSettings) -> Run:
    """Read a run folder. Its data set and its checkpoints are not needed.

    Args:
        path: the run folder.
        settings: the run's.

    Raises:
        LocalLearnError: there are no metrics of a whole epoch, or a file is damaged.
    """
    folder = RunFolder(path)
    count = len(folder.rows())
    if not count:
        raise LocalLearnError(f"{path} has no metrics yet: train it for an epoch, or leave it out.")
    rows = folder.rows_before(count + 1, *_METRICS)
    for row in rows:
        _refuse_wrong_numbers(row, folder.metrics)
    return Run(
        path=path,
        settings=settings,
        card=data_card_of(folder, settings),
        rows=tuple(rows),
        result=folder.read_result(*RESULTS) if folder.result.exists() else {},
        environment=_mapping(folder.environment),
        analyses=read_analyses(path),
        changes=_changes(folder),
    )


def _changes(folder: RunFolder) -> tuple[Change, ...]:
    """The settings that changed, in order, as `RunFolder.change_settings` wrote them."""
    try:
        return tuple(
            Change(setting=name, before=pair["before"], now=pair["now"], epoch=event["epoch"], step=event["step"])
            for event in folder.events()
            for name, pair in event.get("changes", {}).items()
        )
    except (KeyError, TypeError) as error:
        raise LocalLearnError(
            f"{folder.history} is damaged: an event lacks where or what changed. Put a copy of it back."
        ) from error


def names_of(folders: Sequence[Path]) -> list[str]:
    """Names of the folders; of those with equal names the paths."""
    names = [folder.resolve().name for folder in folders]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, folders, strict=True)]


def refuse_same_folder(runs: Sequence[Run]) -> None:
    """Refuse a run that is given twice.

    Raises:
        LocalLearnError: names it.
    """
    seen: dict[Path, Path] = {}
    for run in runs:
        if (path := run.path.resolve()) in seen:
            raise LocalLearnError(f"{run.path} is given twice: leave one out.")
        seen[path] = run.path


def _mapping(path: Path) -> Mapping[str, Any]:
    value = read_json(path) if path.exists() else {}
    if not isinstance(value, dict):
        raise LocalLearnError(f"{path} is damaged: it holds no names and values. Put a copy of it back.")
    return value


def _refuse_wrong_numbers(row: Mapping[str, Any], path: Path) -> None:
    losses = row["losses"]
    names = [name for name in (*_METRICS, "validation_accuracy") if name in row and name != "losses"]
    numbers = [row[name] for name in names] + (losses if isinstance(losses, list) else [None])
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise LocalLearnError(
            f"{path} is damaged: epoch {row['epoch']} has a metric that is no number. Put a copy of it back."
        )

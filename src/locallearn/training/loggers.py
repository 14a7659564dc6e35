"""Loggers: where the metrics of each epoch go besides the run folder's own `metrics.jsonl`."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.optional_imports import optional
from locallearn._utils.registry import call

_LAYOUT = {
    "training": {
        "accuracy": ["Multiline", ["(unaveraged_)?(test|validation)_accuracy", "test_top5_accuracy"]],
        "loss of the classifier": ["Multiline", ["train_loss", "(test|validation)_loss"]],
        "training loss of each objective": ["Multiline", ["losses/.*"]],
        "test accuracy of each head": ["Multiline", ["head_accuracies/.*"]],
    }
}
"""Of TensorBoard's tab "Custom Scalars"; tags are regular expressions."""


class Logger(ABC):
    """Shows the metrics of a run. A subclass of your own is named by its dotted path, or by an entry point.

    Args:
        folder: the run folder.
        settings: of the run, as in its `settings.yaml`.
        epoch: the first one to come, from 1; a run that goes on may have logged it and later ones already.

    Raises:
        LocalLearnError: there is nowhere to log to; training does not start.
    """

    @abstractmethod
    def __init__(self, folder: Path, settings: Mapping[str, Any], *, epoch: int) -> None: ...

    @abstractmethod
    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of an epoch, of which lists have a name for each part: losses/00, losses/01, ..."""

    def close(self) -> None:  # noqa: B027
        """Called once, when training ends, whatever ends it."""


class TensorBoard(Logger):
    """Event files in the run folder. The tab "Custom Scalars" has the losses of all objectives as one chart."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, epoch: int) -> None:
        self._events = optional("torch.utils.tensorboard").SummaryWriter(str(folder), purge_step=epoch)
        self._events.add_custom_scalars(_LAYOUT)

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._events.add_scalar(name, value, epoch)
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class WandB(Logger):
    """Weights & Biases, in the project that `WANDB_PROJECT` names, by default locallearn.

    Sign in by `wandb login`, or set `WANDB_MODE=offline` and send the run later by `wandb sync RUN/wandb/offline-*`.
    A run that goes on is the same one there. At the end, `losses by objective` has all losses as one chart.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, epoch: int) -> None:
        self._wandb = optional("wandb", extra="wandb")
        try:
            self._run = self._wandb.init(
                project=None if self._wandb.env.get_project() else "locallearn",
                dir=str(folder),
                name=folder.name,
                id=hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16],
                resume="allow",
                config=dict(settings),
            )
        except self._wandb.Error as error:
            raise LocalLearnError(
                f"Weights & Biases does not start ({error}): run wandb login, or set WANDB_MODE=offline."
            ) from error
        self._losses: dict[str, list[tuple[int, float]]] = {}

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=epoch)
        for name, value in metrics.items():
            if name.startswith("losses/"):
                self._losses.setdefault(name.removeprefix("losses/"), []).append((epoch, value))

    def close(self) -> None:
        if self._losses:
            lines = [[epoch, value, name] for name, points in self._losses.items() for epoch, value in points]
            table = self._wandb.Table(columns=["epoch", "loss", "objective"], data=lines)
            chart = self._wandb.plot.line(table, "epoch", "loss", stroke="objective", title="losses by objective")
            self._run.log({"losses by objective": chart})
        self._run.finish()


@contextmanager
def logging_to(
    names: Sequence[str], folder: Path, settings: Mapping[str, Any], *, epoch: int
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Loggers while training runs.

    Args:
        names: of loggers: "tensorboard", "wandb", or the dotted path of a subclass of `Logger`.
        folder: as in `Logger`.
        settings: as in `Logger`.
        epoch: as in `Logger`.

    Yields:
        A function that takes an epoch's row of metrics.
    """
    with ExitStack() as stack:
        loggers: list[Logger] = []
        for name in names:
            logger = call("loggers", name, folder, settings, epoch=epoch)
            stack.callback(logger.close)
            loggers.append(logger)

        def log(row: Mapping[str, Any]) -> None:
            for logger in loggers:
                logger.log(row["epoch"], numbers_of(row))

        yield log


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a row of metrics; those in a list have their place in it as a name."""
    parts = dict(row)
    for name, value in row.items():
        if isinstance(value, list):
            parts |= {f"{name}/{place:02d}": part for place, part in enumerate(value)}
    return {name: value for name, value in parts.items() if isinstance(value, float)}

"""The loop that all training shares: epochs of steps, metrics and checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.data import Batches
from locallearn.training.evaluation import choosing_accuracy
from locallearn.training.files.checkpoint import (
    FILES,
    Checkpoint,
    link_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    trained_weights,
    unresumable,
)
from locallearn.training.files.optimizer_state import (
    group_settings,
    joined_states,
    load_named_state,
    named_state,
    optimizers_of,
)
from locallearn.training.files.run_folder import RunFolder
from locallearn.training.loggers import logging_to
from locallearn.training.processes.processes import Processes
from locallearn.training.settings.loop import LoopSettings
from locallearn.training.settings.text import plain_settings

_PROGRESS = ("epoch", "step", "seconds", "best", "sums", "seen", "skipped")
"""Attributes of a loop that its checkpoints hold."""


class Interrupted(Exception):  # noqa: N818
    """Training stopped because the watcher asked it to; its checkpoint is written.

    Attributes:
        signal: that the process was sent, if any.
    """

    signal: int = 0


class Watcher:
    """Learns how training proceeds, and can stop it; this one does nothing."""

    def batch(self, *, epoch: int, step: int, steps: int, loss: float) -> None:
        """Called after each optimizer step.

        Args:
            epoch: from 1.
            step: within the epoch, from 1.
            steps: number of steps in an epoch.
            loss: the network's own loss, without those of auxiliary networks.
        """

    def epoch(self, row: dict[str, Any]) -> None:
        """Called after each epoch, with its row of metrics."""

    def stop_requested(self) -> bool:
        """Asked after each step: whether to write a checkpoint and stop."""
        return False


class Loop(ABC):
    """Trains a network for some epochs; a stopped loop resumes at any step with equal bits.

    A subclass defines the step and the evaluation. After each epoch the loop evaluates, adds a row of metrics to the
    run folder, and writes a checkpoint; `best.pt` is that of the highest `validation_accuracy`, or
    `test_accuracy` where rows have no other.

    Args:
        net: the network, on its device.
        batches: of the training split.
        test: the test split.
        settings: how to train.
        validation: images on which the best epoch is chosen, if there are any besides the test split.
        folder: where metrics and checkpoints go; None writes nothing. Of several processes, the first one alone has it.
        watcher: learns how training proceeds.
        processes: which share the run; this one alone by default.

    Attributes:
        epoch: the current one, from 1.
        step: number of finished steps in the epoch.
        skipped: images of the epoch that could not be read and were left out.
    """

    def __init__(
        self,
        net: nn.Module,
        batches: Batches,
        test: Any,
        settings: LoopSettings,
        *,
        validation: Any = None,
        folder: RunFolder | None = None,
        watcher: Watcher | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.net, self.batches, self.test, self.settings = net, batches, test, settings
        self.validation = validation
        self.folder, self.watcher = folder, watcher or Watcher()
        self.stepper: Any = settings.make_stepper(net)
        self.average = settings.average_of(net)
        self.device = next(net.parameters()).device
        self.processes = processes or Processes(self.device)
        self.best = -1.0
        self._went_back_to: Path | None = None
        self._start_epoch(1)

    @abstractmethod
    def train_step(self, images: Any, targets: Any, *, learning_rate: float) -> Tensor:
        """One optimizer step; the batch's mean losses, (losses,), float64, detached."""

    def images_in(self, targets: Any) -> int:
        """Images of the step just made, in all processes, of which these are the targets of this one."""
        return len(targets)

    @abstractmethod
    def loss_count(self) -> int:
        """Number of losses of a step."""

    @abstractmethod
    def loss_metrics(self, losses: list[float]) -> dict[str, Any]:
        """Losses as metrics: `train_loss`, a number to watch, and `losses`, all of them."""

    @abstractmethod
    def evaluate(self) -> dict[str, Any]:
        """Metrics of the test split."""

    def is_over(self) -> bool:
        """Asked before each epoch: whether training ends before all epochs are over."""
        return False

    def begin_training(self) -> None:
        """Called before the steps of an epoch: modes of the network."""
        self.net.train()

    def run(self) -> list[dict[str, Any]]:
        """Train for the epochs that remain.

        Returns:
            One row of metrics for each of these epochs: epoch, lr (of its last step), seconds (of training alone), and
            those of `loss_metrics` and `evaluate`.

        Raises:
            Interrupted: the watcher asked to stop.
        """
        rows = []
        with self._recording() as record:
            self._begin()
            while self.epoch <= self.settings.epochs and not self.is_over():
                rows.append(self._run_epoch(record))
        return rows

    def resume(self, checkpoint: Checkpoint = "last") -> None:
        """Go back to a checkpoint of the folder; a run that was stopped before its first one starts from the beginning.

        Nothing is written before `run`.

        Raises:
            LocalLearnError: it is missing, damaged, or does not fit.
        """
        state = self.processes.from_first(lambda: self._read(checkpoint))
        if state is None:
            return
        file = Path(state.pop("file"))
        epoch, step = state["epoch"], state["step"]
        if step == 0 and epoch > self.settings.epochs + 1:
            raise LocalLearnError(
                f"{file} is of a run that has trained {counted(epoch - 1, 'epoch')}, and epochs={self.settings.epochs}"
                f" takes none back: give at least {epoch - 1} by --epochs, or train a new run."
            )
        steps = len(self.batches) if epoch <= self.settings.epochs else 0
        if not (1 <= epoch <= self.settings.epochs + 1 and 0 <= step <= steps):
            raise unresumable(
                file,
                f"is of epoch {epoch}, step {step}, and the run has {counted(self.settings.epochs, 'epoch')} of"
                f" {counted(len(self.batches), 'step')}",
            )
        own = slice(*self._own_losses())
        sums = sum(self.processes.of_modules(self.loss_count())) if step else 0
        if len(state["sums"]) != sums or (step > 0) != (state["seen"] > 0):
            raise unresumable(
                file, f"has {len(state['sums'])} sums of {state['seen']} images at step {step}, not {sums}"
            )
        if self.folder is not None:
            self.folder.rows_before(epoch)  # refuses metrics that lack an epoch
        if (self.average is None) == bool(state["average"]):
            raise unresumable(file, f"has {'an' if self.average is None else 'no'} average of the weights")
        if self.average is not None:
            with self.average.in_use():
                load_weights(self.net, trained_weights(state), file=file, name="the network")
        load_weights(self.net, state["net"], file=file, name="the network")
        optimizers = optimizers_of(self.stepper)
        try:
            before = group_settings(optimizers)
            load_named_state(self.net, optimizers, state["optimizers"])
            self.processes.set_random_states(state["random"], epoch=epoch, step=step)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise unresumable(file, "has optimizers or random numbers that do not fit the settings") from error
        if group_settings(optimizers) != before:
            raise unresumable(file, "has the state of another optimizer")
        for name in _PROGRESS:
            setattr(self, name, state[name])
        self.sums = self.sums[own]
        if not self.processes.leads:
            self.skipped = []  # the first process has those of all
        self._went_back_to = file

    def _own_losses(self) -> tuple[int, int]:
        """Where this process's losses begin and end among those of all local modules."""
        counts = self.processes.of_modules((self.processes.rank, self.loss_count()))
        start = sum(count for rank, count in counts if rank < self.processes.rank)
        return start, start + self.loss_count()

    def _all_sums(self) -> list[float]:
        """The sums of the losses of all local modules."""
        return [total for sums in self.processes.of_modules(self.sums) for total in sums]

    def _read(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """A checkpoint of the folder and the path of its file, or None if the run was stopped before its first one."""
        assert self.folder is not None
        if checkpoint == "last" and self.folder.never_saved():
            return None
        file = self.folder.path / FILES[checkpoint]
        return load_checkpoint(file, unresumable) | {"file": str(file)}

    def _start_epoch(self, epoch: int) -> None:
        self.epoch, self.step, self.seconds = epoch, 0, 0.0
        self.sums: list[float] = []
        self.seen = 0
        self.skipped: list[str] = []

    def _begin(self) -> None:
        """Write the first checkpoint, or that to which the run went back; later metrics and results go."""
        if self.processes.from_first(lambda: self.folder is not None and not self.folder.last.exists()):
            self._save()  # there are never metrics without a checkpoint, so a lost one is told from a new run
        if self.folder is None:
            return
        if self._went_back_to not in (None, self.folder.last):
            link_checkpoint(self._went_back_to, self.folder.last)
        self.folder.begin(self.epoch)
        if self.epoch <= self.settings.epochs and not self.is_over():
            self.folder.result.unlink(missing_ok=True)  # of a run that went back, or has other settings now

    def _recording(self) -> AbstractContextManager[Callable[[dict[str, Any]], None]]:
        """What takes the rows of metrics of the epochs to come, besides the run folder."""
        if self.folder is None:
            return nullcontext(lambda _: None)
        return logging_to(self.settings.loggers, self.folder.path, plain_settings(self.settings), epoch=self.epoch)

    def _run_epoch(self, record: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Train for the rest of the epoch, evaluate, and write metrics and checkpoints."""
        self._train_to_end_of_epoch()
        self.processes.at(f"testing after epoch {self.epoch}")
        row = {
            "epoch": self.epoch,
            "lr": self._learning_rate(len(self.batches) - 1),
            **self.loss_metrics([total / self.seen for total in self._all_sums()]),
            "seconds": self.seconds,
            **self.evaluate(),
        }
        if self.folder is not None:
            self.folder.add_epoch(row)
        record(row)
        accuracy = choosing_accuracy(row)
        is_best, self.best = accuracy > self.best, max(self.best, accuracy)
        self._start_epoch(self.epoch + 1)
        self._save(is_best=is_best)
        self.watcher.epoch(row)
        if self.processes.stop_now(self.watcher.stop_requested()) and self.epoch <= self.settings.epochs:
            raise Interrupted
        return row

    def _train_to_end_of_epoch(self) -> None:
        start, skipped = perf_counter() - self.seconds, self.skipped
        self.begin_training()
        self._tell("reading")
        for images, targets in self.batches.epoch(self.epoch, start=self.step):
            self._tell("training on")
            losses = self.train_step(images, targets, learning_rate=self._learning_rate(self.step)).tolist()
            sums = self.sums or [0.0] * len(losses)
            count = self.images_in(targets)
            self.sums = [total + loss * count for total, loss in zip(sums, losses, strict=True)]
            self.seen += count
            self.skipped = [*skipped, *self.batches.skipped]
            self.step += 1
            self.seconds = perf_counter() - start
            loss = self.loss_metrics(losses)["train_loss"]
            self.watcher.batch(epoch=self.epoch, step=self.step, steps=len(self.batches), loss=loss)
            stop = self.processes.stop_after_step(self.watcher.stop_requested())
            every = self.settings.checkpoint_every
            if stop or (every and self.step % every == 0):
                self._save()
            if stop:
                raise Interrupted
            self._tell("reading")

    def _tell(self, doing: str) -> None:
        batch = self.step + 1
        self.processes.at(f"{doing} batch {batch} of epoch {self.epoch}" if batch <= len(self.batches) else "testing")

    def _learning_rate(self, step: int) -> float:
        return float(self.settings.lr(epoch=self.epoch, step=step, steps=len(self.batches)))

    def _save(self, *, is_best: bool = False) -> None:
        self.processes.at(f"saving at step {self.step} of epoch {self.epoch}")
        state = {name: getattr(self, name) for name in _PROGRESS} | {
            "net": self.net.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "optimizers": joined_states(self.processes.of_modules(named_state(self.net, optimizers_of(self.stepper)))),
            "sums": self._all_sums(),
            "random": self.processes.random_states(),
            "skipped": [name for names in self.processes.of_all(self.skipped) for name in names],
        }
        if self.folder is None:
            return
        if is_best:
            save_checkpoint(state, self.folder.best)
        save_checkpoint(state, self.folder.last, previous=self.folder.previous)

"""The loop that all training shares: epochs of steps, metrics and checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from locallearn._torch.device import random_state, set_random_state
from locallearn._utils.errors import LocalLearnError
from locallearn.data import Batches
from locallearn.training.checkpoint import load_checkpoint, save_checkpoint
from locallearn.training.run_folder import RunFolder

_PROGRESS = ("epoch", "step", "seconds", "best", "sums", "seen", "skipped")
"""Attributes of a loop that its checkpoints hold."""


class Interrupted(Exception):  # noqa: N818
    """Training stopped because the watcher asked it to; its checkpoint is written."""


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

    A subclass defines the step, the learning rate, the evaluation and the state. After each epoch the loop evaluates,
    adds a row of metrics to the run folder, and writes a checkpoint.

    Args:
        net: the network, on its device.
        batches: of the training split.
        epochs: number of epochs in all.
        folder: where metrics and checkpoints go; None writes nothing.
        watcher: learns how training proceeds.

    Attributes:
        epoch: the current one, from 1.
        step: number of finished steps in the epoch.
        skipped: images of the epoch that could not be read and were left out.
    """

    best_by: str | None = None
    """The metric whose highest value `best.pt` holds; None writes no `best.pt`."""

    checkpoint_every: int | None = None
    """Steps between checkpoints within an epoch; None writes one after each epoch alone."""

    def __init__(
        self,
        net: nn.Module,
        batches: Batches,
        *,
        epochs: int,
        folder: RunFolder | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.net, self.batches, self.epochs = net, batches, epochs
        self.folder, self.watcher = folder, watcher or Watcher()
        self.device = next(net.parameters()).device
        self.best = -1.0
        self._start_epoch(1)

    @abstractmethod
    def learning_rate(self, step: int) -> float:
        """The learning rate of a step (from 0) of the current epoch."""

    @abstractmethod
    def train_step(self, images: Any, targets: Any, *, learning_rate: float) -> Tensor:
        """One optimizer step; the batch's mean losses, (losses,), float64, detached."""

    @abstractmethod
    def loss_metrics(self, losses: Tensor) -> dict[str, Any]:
        """Losses as metrics: `train_loss`, a number to watch, and `losses`, all of them."""

    @abstractmethod
    def evaluate(self) -> dict[str, Any]:
        """Metrics of the test split."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Networks and optimizers, for a checkpoint."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any], file: Path) -> None:
        """Load what `state_dict` returned; errors name its file."""

    def run(self) -> list[dict[str, Any]]:
        """Train for the epochs that remain.

        Returns:
            One row of metrics for each of these epochs: epoch, lr (of its last step), seconds (of training alone), and
            those of `loss_metrics` and `evaluate`.

        Raises:
            Interrupted: the watcher asked to stop.
        """
        if self.folder is not None:
            self.folder.drop_epochs_from(self.epoch)
        with nullcontext() if self.folder is None else self.folder.events(self.epoch) as events:
            return [self._finish_epoch(events) for _ in range(self.epoch, self.epochs + 1)]

    def resume(self) -> None:
        """Go back to the folder's last checkpoint.

        Raises:
            LocalLearnError: there is none, it is damaged, or it does not fit.
        """
        assert self.folder is not None
        state = load_checkpoint(self.folder.last)
        if missing := {"random", *_PROGRESS} - state.keys():
            raise LocalLearnError(
                f"the checkpoint {self.folder.last} has no {min(missing)}: another version wrote it, so train anew."
            )
        self.load_state_dict(state, self.folder.last)
        for name in _PROGRESS:
            setattr(self, name, state[name])
        if self.sums is not None:
            self.sums = self.sums.to(self.device)
        set_random_state(state["random"], self.device)

    def _start_epoch(self, epoch: int) -> None:
        self.epoch, self.step, self.seconds = epoch, 0, 0.0
        self.sums: Tensor | None = None
        self.seen = 0
        self.skipped: list[str] = []

    def _finish_epoch(self, events: Any) -> dict[str, Any]:
        """Train for the rest of the epoch, evaluate, and write metrics and checkpoints."""
        losses = self._train_to_end_of_epoch()
        row = {
            "epoch": self.epoch,
            "lr": float(self.learning_rate(len(self.batches) - 1)),
            **losses,
            "seconds": self.seconds,
            **self.evaluate(),
        }
        if self.folder is not None:
            self.folder.add_epoch(row)
            for name, value in row.items():
                if isinstance(value, float):
                    events.add_scalar(name, value, self.epoch)
            events.flush()
        is_best = self.best_by is not None and row[self.best_by] > self.best
        if self.best_by is not None:
            self.best = max(self.best, row[self.best_by])
        self._start_epoch(self.epoch + 1)
        self._save(is_best=is_best)
        self.watcher.epoch(row)
        if self.watcher.stop_requested() and self.epoch <= self.epochs:
            raise Interrupted
        return row

    def _train_to_end_of_epoch(self) -> dict[str, Any]:
        """The epoch's losses as metrics."""
        start, skipped = perf_counter() - self.seconds, self.skipped
        self.net.train()
        for images, targets in self.batches.epoch(self.epoch, start=self.step):
            losses = self.train_step(images, targets, learning_rate=self.learning_rate(self.step))
            weighted = losses * len(targets)
            self.sums = weighted if self.sums is None else self.sums + weighted
            self.seen += len(targets)
            self.skipped = [*skipped, *self.batches.skipped]
            self.step += 1
            self.seconds = perf_counter() - start
            loss = self.loss_metrics(losses)["train_loss"]
            self.watcher.batch(epoch=self.epoch, step=self.step, steps=len(self.batches), loss=loss)
            if self.watcher.stop_requested():
                self._save()
                raise Interrupted
            if self.checkpoint_every and self.step % self.checkpoint_every == 0:
                self._save()
        assert self.sums is not None
        metrics = self.loss_metrics(self.sums / self.seen)
        self.seconds = perf_counter() - start
        return metrics

    def _save(self, *, is_best: bool = False) -> None:
        if self.folder is None:
            return
        progress = {name: getattr(self, name) for name in _PROGRESS}
        state = self.state_dict() | {"random": random_state(self.device)} | progress
        if is_best:
            save_checkpoint(state, self.folder.best)
        save_checkpoint(state, self.folder.last)

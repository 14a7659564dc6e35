"""The training loop."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from locallearn._engine.cuda_graphs import CapturedSteps
from locallearn._engine.local_net import LocalNet
from locallearn._torch.device import mixed, random_state, set_random_state
from locallearn.data import Batches
from locallearn.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from locallearn.training.evaluation import evaluate
from locallearn.training.run_folder import RunFolder
from locallearn.training.settings import FitSettings

_PROGRESS = ("epoch", "step", "seconds", "best", "sums", "seen", "skipped")


class Interrupted(Exception):  # noqa: N818
    """Training stopped because it was asked to; its checkpoint is written."""


class Watcher:
    """Told how training goes; this one does nothing."""

    def batch(self, *, epoch: int, step: int, steps: int, loss: float) -> None:
        """After each optimizer step, with the last objective's loss."""

    def epoch(self, row: dict[str, Any]) -> None:
        """After each epoch, with its line of metrics."""

    def stop_requested(self) -> bool:
        """Asked after each step: whether to write a checkpoint and stop."""
        return False


class Fit:
    """Trains a network: epochs of steps, evaluation, metrics and checkpoints, resumable at any step with equal bits.

    Args:
        net: the network, on its device.
        train, test: batches.
        settings: how.
        folder: where metrics and checkpoints go; None keeps nothing.
        watcher: told how it goes.
    """

    def __init__(
        self,
        net: LocalNet,
        train: Batches,
        test: Batches,
        settings: FitSettings,
        *,
        folder: RunFolder | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.net, self.train, self.test, self.settings = net, train, test, settings
        self.folder, self.watcher = folder, watcher or Watcher()
        self.stepper = settings.make_stepper(net)
        self.captured = CapturedSteps(net, self.stepper, autocast=settings.autocast) if settings.cuda_graphs else None
        self.device = next(net.parameters()).device
        self.epoch, self.step, self.seconds, self.best = 1, 0, 0.0, -1.0
        self.sums: Tensor | None = None
        self.seen = 0
        self.skipped: list[str] = []

    def run(self) -> list[dict[str, Any]]:
        """Train what is left of the epochs.

        Returns:
            One row of metrics for each epoch run: epoch, lr (of its last step), train_loss (of the last objective),
            losses (of all), test_accuracy, test_loss, seconds (of training alone), head_accuracies on request, and
            skipped_images (their names) where files could not be read and were left out.

        Raises:
            Interrupted: the watcher asked to stop.
            NonFiniteLossError: a loss became NaN or infinite; the checkpoints are from before.
        """
        if self.folder is None:
            return [self._finish_epoch(None) for _ in range(self.epoch, self.settings.epochs + 1)]
        self.folder.keep_epochs(self.epoch - 1)
        with self.folder.events(self.epoch) as events:
            return [self._finish_epoch(events) for _ in range(self.epoch, self.settings.epochs + 1)]

    def resume(self) -> None:
        """Go back to the folder's last checkpoint."""
        assert self.folder is not None
        state = load_checkpoint(self.folder.last)
        load_weights(self.net, state["net"], file=self.folder.last, name=type(self.net.model).__name__)
        self.net.steps = state["steps"]
        self.stepper.load_state_dict(state["optimizers"])
        for name in _PROGRESS:
            setattr(self, name, state[name])
        if self.sums is not None:
            self.sums = self.sums.to(self.device)
        set_random_state(state["random"], self.device)

    def _finish_epoch(self, events: Any) -> dict[str, Any]:
        """Train what is left of an epoch, evaluate, write it down."""
        row = self._run_epoch()
        if self.folder is not None:
            self.folder.add_epoch(row)
            for name in ("lr", "train_loss", "test_loss", "test_accuracy", "seconds"):
                events.add_scalar(name, row[name], row["epoch"])
            events.flush()
        improved = row["test_accuracy"] > self.best
        self.best = max(self.best, row["test_accuracy"])
        self.epoch, self.step, self.seconds, self.sums, self.seen = self.epoch + 1, 0, 0.0, None, 0
        self.skipped = []
        self._save(best=improved)
        self.watcher.epoch(row)
        if self.watcher.stop_requested() and self.epoch <= self.settings.epochs:
            raise Interrupted
        return row

    def _run_epoch(self) -> dict[str, Any]:
        settings, steps = self.settings, len(self.train)
        start, already = perf_counter(), self.seconds
        self.net.train()
        before = self.skipped
        for images, labels in self.train.epoch(self.epoch, start=self.step):
            self.stepper.set_lr(self._lr(self.step))
            losses = self._train_step(images, labels)
            self.sums = losses * len(labels) if self.sums is None else self.sums + losses * len(labels)
            self.seen += len(labels)
            self.skipped = [*before, *self.train.skipped]
            self.step += 1
            self.seconds = already + perf_counter() - start
            self.watcher.batch(epoch=self.epoch, step=self.step, steps=steps, loss=float(losses[-1]))
            if self.watcher.stop_requested():
                self._save(best=False)
                raise Interrupted
            if settings.checkpoint_every and self.step % settings.checkpoint_every == 0:
                self._save(best=False)
        assert self.sums is not None
        means = (self.sums / self.seen).tolist()
        self.seconds = already + perf_counter() - start
        result = evaluate(self.net, self.test, heads=settings.eval_heads, autocast=settings.autocast)
        row = {
            "epoch": self.epoch,
            "lr": self._lr(steps - 1),
            "train_loss": means[-1],
            "losses": means,
            "test_accuracy": result.accuracy,
            "test_loss": result.loss,
            "seconds": self.seconds,
        }
        if skipped := [*self.skipped, *self.test.skipped]:
            row["skipped_images"] = skipped
        return row | ({"head_accuracies": list(result.head_accuracies)} if settings.eval_heads else {})

    def _lr(self, step: int) -> float:
        settings = self.settings
        return settings.schedule.lr(
            settings.optimizer.lr, epoch=self.epoch, epochs=settings.epochs, step=step, steps=len(self.train)
        )

    def _train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One optimizer step; losses of the whole batch, detached, as float64."""
        if self.captured is not None:
            return self.captured(images, labels).double()
        dtype = self.settings.autocast
        total = torch.zeros(len(self.net.objectives), dtype=torch.float64, device=images.device)
        count = min(self.settings.accumulate, len(labels))
        parts = list(zip(images.tensor_split(count), labels.tensor_split(count), strict=True))
        for index, (some_images, some_labels) in enumerate(parts):
            final = index == len(parts) - 1
            share = len(some_labels) / len(labels)
            with mixed(images.device, dtype):
                losses = self.net.backward(
                    some_images,
                    some_labels,
                    scale=share,
                    final=final,
                    on_complete=self.stepper.on_complete if final else None,
                )
            total += losses * share
        self.stepper.finish()
        return total

    def _save(self, *, best: bool) -> None:
        if self.folder is None:
            return
        state = {
            "net": self.net.state_dict(),
            "steps": self.net.steps,
            "optimizers": self.stepper.state_dict(),
            "random": random_state(self.device),
            **{name: getattr(self, name) for name in _PROGRESS},
        }
        if best:
            save_checkpoint(state, self.folder.best)
        save_checkpoint(state, self.folder.last)

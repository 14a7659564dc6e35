"""The training loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from locallearn._device import random_state, set_random_state
from locallearn._local_net import LocalNet
from locallearn._stepping import ModuleStepper, Stepper
from locallearn.data import Batches
from locallearn.training._checkpoint import load_checkpoint, save_checkpoint
from locallearn.training._evaluate import evaluate
from locallearn.training._run_folder import RunFolder
from locallearn.training._settings import FitSettings


class Interrupted(Exception):  # noqa: N818
    """Training stopped because it was asked to; its checkpoint is written."""


class Watcher:
    """Told how training goes; this one does nothing."""

    def batch(self, *, epoch: int, step: int, steps: int, loss: float | None) -> None:
        """After each optimizer step; `loss` is given now and then, since to read it is to wait for the device."""

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
        self.stepper = make_stepper(settings)(net)
        self.epoch, self.step, self.seconds, self.best = 1, 0, 0.0, -1.0
        self.sums: Tensor | None = None
        self.seen = 0

    def run(self) -> list[dict[str, Any]]:
        """Train what is left of the epochs.

        Returns:
            One row of metrics for each epoch run: epoch, lr (of its last step), train_loss (of the last objective),
            losses (of all), test_accuracy, test_loss, seconds (of training alone), and head_accuracies on request.

        Raises:
            Interrupted: the watcher asked to stop.
            NonFiniteLossError: a loss became NaN or infinite; the checkpoints are from before.
        """
        rows = []
        events = self.folder.events(self.epoch) if self.folder else None
        while self.epoch <= self.settings.epochs:
            row = self._run_epoch()
            rows.append(row)
            if self.folder and events is not None:
                self.folder.add_epoch(row)
                for name in ("lr", "train_loss", "test_loss", "test_accuracy", "seconds"):
                    events.add_scalar(name, row[name], row["epoch"])
                events.flush()
            self._next_epoch()
            self._save(best=row["test_accuracy"] > self.best)
            self.watcher.epoch(row)
        if events is not None:
            events.close()
        return rows

    def resume(self) -> None:
        """Go back to the folder's last checkpoint."""
        assert self.folder is not None
        state = load_checkpoint(self.folder.last, device=next(self.net.parameters()).device)
        self.net.load_state_dict(state["net"])
        self.net.steps = state["steps"]
        self.stepper.load_state_dict(state["optimizers"])
        for name in ("epoch", "step", "seconds", "best", "sums", "seen"):
            setattr(self, name, state[name])
        set_random_state(state["random"])
        self.folder.keep_epochs(self.epoch - 1)

    def _run_epoch(self) -> dict[str, Any]:
        settings, steps = self.settings, len(self.train)
        start, already, lr = perf_counter(), self.seconds, 0.0
        self.net.train()
        for images, labels in self.train.epoch(self.epoch, start=self.step):
            lr = settings.schedule.lr(
                settings.optimizer.lr, epoch=self.epoch, epochs=settings.epochs, step=self.step, steps=steps
            )
            self.stepper.set_lr(lr)
            losses = self._train_step(images, labels)
            self.sums = losses * len(labels) if self.sums is None else self.sums + losses * len(labels)
            self.seen += len(labels)
            self.step += 1
            self.seconds = already + perf_counter() - start
            shown = float(losses[-1]) if self.step % 10 == 1 or self.step == steps else None
            self.watcher.batch(epoch=self.epoch, step=self.step, steps=steps, loss=shown)
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
            "lr": lr,
            "train_loss": means[-1],
            "losses": means,
            "test_accuracy": result.accuracy,
            "test_loss": result.loss,
            "seconds": self.seconds,
        }
        return row | ({"head_accuracies": list(result.head_accuracies)} if settings.eval_heads else {})

    def _train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One optimizer step; losses of the whole batch, detached, as float64."""
        dtype = self.settings.autocast
        total = torch.zeros(len(self.net.objectives), dtype=torch.float64, device=images.device)
        parts = list(zip(images.chunk(self.settings.accumulate), labels.chunk(self.settings.accumulate), strict=True))
        for index, (some_images, some_labels) in enumerate(parts):
            final = index == len(parts) - 1
            share = len(some_labels) / len(labels)
            with nullcontext() if dtype is None else torch.autocast(images.device.type, dtype=dtype):
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

    def _next_epoch(self) -> None:
        self.epoch, self.step, self.seconds, self.sums, self.seen = self.epoch + 1, 0, 0.0, None, 0

    def _save(self, *, best: bool) -> None:
        if self.folder is None:
            return
        if best:
            self.best = self.folder.rows()[-1]["test_accuracy"]
        state = {
            "net": self.net.state_dict(),
            "steps": self.net.steps,
            "optimizers": self.stepper.state_dict(),
            "random": random_state(),
            **{name: getattr(self, name) for name in ("epoch", "step", "seconds", "best", "sums", "seen")},
        }
        if best:
            save_checkpoint(state, self.folder.best)
        save_checkpoint(state, self.folder.last)


def make_stepper(settings: FitSettings) -> Callable[[LocalNet], Stepper]:
    """What makes the optimizers of a network."""
    make, clip = settings.optimizer.make, settings.clip_module_norm
    if settings.step == "module":
        return partial(ModuleStepper, make_optimizer=make, clip_module_norm=clip)
    return partial(Stepper, make_optimizer=make, clip_norm=settings.clip_norm, clip_module_norm=clip)

"""Local learning as a loop: backward passes of local modules, optimizer steps, accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from locallearn._engine.cuda_graphs import CapturedSteps
from locallearn._engine.local_net import LocalNet
from locallearn._torch.device import mixed
from locallearn.data import Batches
from locallearn.training.checkpoint import load_weights
from locallearn.training.evaluation import evaluate
from locallearn.training.loop import Loop, Watcher
from locallearn.training.run_folder import RunFolder
from locallearn.training.settings import FitSettings


class Fit(Loop):
    """Trains a local network. See `Loop` for epochs, checkpoints and resuming.

    A row of metrics has epoch, lr (of the last step), train_loss (of the last objective), losses (of all), seconds (of
    training alone), test_accuracy, test_loss, head_accuracies on request, and skipped_images (names of files that could
    not be read and were left out), if there are any.

    Args:
        net: the network, on its device.
        train, test: batches.
        settings: how to train.
        folder: where metrics and checkpoints go; None writes nothing.
        watcher: learns how training proceeds.

    Raises:
        NonFiniteLossError: in `run`, a loss became NaN or infinite; the checkpoints are from before.
    """

    net: LocalNet
    best_by = "test_accuracy"

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
        super().__init__(net, train, epochs=settings.epochs, folder=folder, watcher=watcher)
        self.checkpoint_every = settings.checkpoint_every
        self.test, self.settings = test, settings
        self.stepper = settings.make_stepper(net)
        self.captured = CapturedSteps(net, self.stepper, autocast=settings.autocast) if settings.cuda_graphs else None

    def learning_rate(self, step: int) -> float:
        schedule, base = self.settings.schedule, self.settings.optimizer.lr
        return schedule.lr(base, epoch=self.epoch, epochs=self.epochs, step=step, steps=len(self.batches))

    def train_step(self, images: Tensor, targets: Tensor, *, learning_rate: float) -> Tensor:
        self.stepper.set_lr(learning_rate)
        if self.captured is not None:
            return self.captured(images, targets).double()
        total = torch.zeros(len(self.net.objectives), dtype=torch.float64, device=images.device)
        count = min(self.settings.accumulate, len(targets))
        parts = zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
        for index, (some_images, some_targets) in enumerate(parts):
            final = index == count - 1
            share = len(some_targets) / len(targets)
            with mixed(images.device, self.settings.autocast):
                losses = self.net.backward(
                    some_images,
                    some_targets,
                    scale=share,
                    final=final,
                    on_complete=self.stepper.on_complete if final else None,
                )
            total += losses * share
        self.stepper.finish()
        return total

    def loss_metrics(self, losses: Tensor) -> dict[str, Any]:
        values = losses.tolist()
        return {"train_loss": values[-1], "losses": values}

    def evaluate(self) -> dict[str, Any]:
        result = evaluate(self.net, self.test, heads=self.settings.eval_heads, autocast=self.settings.autocast)
        metrics: dict[str, Any] = {"test_accuracy": result.accuracy, "test_loss": result.loss}
        if skipped := [*self.skipped, *self.test.skipped]:
            metrics["skipped_images"] = skipped
        if self.settings.eval_heads:
            metrics["head_accuracies"] = list(result.head_accuracies)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "steps": self.net.steps, "optimizers": self.stepper.state_dict()}

    def load_state_dict(self, state: dict[str, Any], file: Path) -> None:
        load_weights(self.net, state["net"], file=file, name=type(self.net.model).__name__)
        self.net.steps = state["steps"]
        self.stepper.load_state_dict(state["optimizers"])

"""Local learning as a loop: backward passes of local modules, optimizer steps, accuracy."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from locallearn._engine.cuda_graphs import CapturedSteps
from locallearn._engine.local_net import LocalNet
from locallearn._torch.device import mixed
from locallearn.training.evaluation import evaluate
from locallearn.training.files.checkpoint import Checkpoint
from locallearn.training.loop import Loop
from locallearn.training.settings import FitSettings


class Fit(Loop):
    """Trains a local network. See `Loop` for epochs, checkpoints and resuming.

    A row of metrics has epoch, lr (of the last step), train_loss (of the last objective), losses (of all), seconds (of
    training alone), test_accuracy, test_loss, test_top5_accuracy of 100 classes or more, validation_accuracy and
    validation_loss if there are validation images, head_accuracies on request, and skipped_images (names of files that
    could not be read and were left out), if there are any.

    Args:
        net: the network, on its device.
        batches, test: of the two splits.
        validation: images held out of the training split, on which the best epoch is chosen; none by default.
        settings: how to train.
        folder: where metrics and checkpoints go; None writes nothing.
        watcher: learns how training proceeds.
        processes: which share the run; this one alone by default.

    Raises:
        NonFiniteLossError: in `run`, a loss became NaN or infinite; the checkpoints are from before.
    """

    net: LocalNet
    settings: FitSettings

    @cached_property
    def captured(self) -> CapturedSteps:
        """The step as a CUDA graph."""
        return CapturedSteps(self.net, self.stepper, autocast=self.settings.autocast)

    def train_step(self, images: Tensor, targets: Tensor, *, learning_rate: float) -> Tensor:
        self.stepper.set_lr(learning_rate)
        sharing = self.net.gradient_sharing
        if self.settings.cuda_graphs:
            return self.captured(images, targets).double()
        total = torch.zeros(len(self.net.objectives), dtype=torch.float64, device=images.device)
        count = min(self.settings.accumulate, len(targets))
        parts = zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
        for index, (part, labels) in enumerate(parts):
            final, share = index == count - 1, len(labels) / len(targets)
            on_complete = self.stepper.on_complete if final else None
            with mixed(images.device, self.settings.autocast):
                losses = self.net.backward(part, labels, scale=share, final=final, on_complete=on_complete)
            total = losses.double() if sharing and final else total + losses * share  # that of all processes
        self.stepper.finish()
        return total

    def images_in(self, targets: Tensor) -> int:
        sharing = self.net.gradient_sharing
        return len(targets) if sharing is None else sharing.images

    def loss_count(self) -> int:
        return len(self.net.objectives)

    def loss_metrics(self, losses: list[float]) -> dict[str, Any]:
        return {"train_loss": losses[-1], "losses": losses}

    def evaluate(self) -> dict[str, Any]:
        self.processes.share_buffers(self.net)
        result = evaluate(
            self.net,
            self.test,
            heads=self.settings.eval_heads,
            autocast=self.settings.autocast,
            summed=self.processes.summed,
        )
        metrics: dict[str, Any] = {"test_accuracy": result.accuracy, "test_loss": result.loss}
        if result.top5_accuracy is not None:
            metrics["test_top5_accuracy"] = result.top5_accuracy
        skipped = [*self.skipped, *self.test.skipped]
        if self.validation is not None:
            chosen = evaluate(self.net, self.validation, autocast=self.settings.autocast, summed=self.processes.summed)
            metrics |= {"validation_accuracy": chosen.accuracy, "validation_loss": chosen.loss}
            skipped += self.validation.skipped
        skipped = self.processes.of_all(skipped)
        if any(skipped):
            metrics["skipped_images"] = [name for names in skipped for name in names]
        if self.settings.eval_heads:
            metrics["head_accuracies"] = [
                accuracy for heads in self.processes.of_modules(result.head_accuracies) for accuracy in heads
            ]
        return metrics

    def resume(self, checkpoint: Checkpoint = "last") -> None:
        super().resume(checkpoint)
        self.net.steps = (self.epoch - 1) * len(self.batches) + self.step

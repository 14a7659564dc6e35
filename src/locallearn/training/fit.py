"""Local learning as a loop: backward passes of local modules, optimizer steps, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._engine.cuda_graphs import CapturedSteps
from locallearn._engine.local_net import LocalNet
from locallearn._engine.micro_batches import micro_batches
from locallearn._torch.device import mixed
from locallearn._utils.errors import LocalLearnError
from locallearn.data import Batches
from locallearn.training.evaluation import evaluate
from locallearn.training.files.checkpoint import Checkpoint
from locallearn.training.loop import Loop
from locallearn.training.settings.fit import FitSettings

_UNAVERAGED = ("test_accuracy", "validation_accuracy")
"""Metrics that are reported of the last weights too, where the average of weights is evaluated."""


class Fit(Loop):
    """Trains a local network. See `Loop` for epochs, checkpoints and resuming.

    A row of metrics has epoch, lr (of the last step), train_loss (of the last objective), losses (of all), seconds (of
    training alone), test_accuracy, test_loss, test_top5_accuracy of 100 classes or more, validation_accuracy and
    validation_loss if there are validation images, head_accuracies on request, and skipped_images (names of files that
    could not be read and were left out), if there are any. With `ema`, these are of the averaged weights, but for
    head_accuracies, unaveraged_test_accuracy and unaveraged_validation_accuracy, which are of the last ones.

    Args:
        net: the network, on its device.
        batches, test: of the two splits.
        validation: images held out of the training split, on which the best epoch is chosen; none by default.
        settings: how to train.
        frozen: parts that stay in evaluation mode, as batch normalisation whose statistics stay.
        folder: where metrics and checkpoints go; None writes nothing.
        watcher: learns how training proceeds.
        processes: which share the run; this one alone by default.

    Raises:
        NonFiniteLossError: in `run`, a loss became NaN or infinite; the checkpoints are from before.
    """

    net: LocalNet
    settings: FitSettings

    def __init__(
        self,
        net: LocalNet,
        batches: Batches,
        test: Batches,
        settings: FitSettings,
        *,
        frozen: Sequence[nn.Module] = (),
        **others: Any,
    ) -> None:
        super().__init__(net, batches, test, settings, **others)
        self.frozen = frozen
        self._validated: list[float] = []  # validation accuracy of each epoch so far
        if self.settings.early_stopping is not None and self.validation is None:
            raise LocalLearnError("early_stopping needs validation images: give Fit some by validation=.")

    @cached_property
    def captured(self) -> CapturedSteps:
        """The step as a CUDA graph."""
        return CapturedSteps(self.net, self.stepper, autocast=self.settings.autocast)

    def train_step(self, images: Tensor, targets: Tensor, *, learning_rate: float) -> Tensor:
        self.stepper.set_lr(learning_rate)
        losses = self._stepped(images, targets)
        if self.average is not None:
            self.average.update(self.net.steps)
        return losses

    def _stepped(self, images: Tensor, targets: Tensor) -> Tensor:
        sharing = self.net.gradient_sharing
        if self.settings.cuda_graphs:
            return self.captured(images, targets).double()
        total = torch.zeros(len(self.net.objectives), dtype=torch.float64, device=images.device)
        for part in micro_batches(images, targets, self.settings.accumulate):
            on_complete = self.stepper.on_complete if part.final else None
            last: Any = {"final": part.final, "on_complete": on_complete}
            with mixed(images.device, self.settings.autocast):
                losses = self.net.backward(part.images, part.targets, scale=part.share, **last)
            total = losses.double() if sharing and part.final else total + losses * part.share  # that of all processes
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
        metrics = self._evaluated(heads=self.settings.eval_heads)
        if self.average is not None:
            unaveraged = {f"unaveraged_{name}": value for name, value in metrics.items() if name in _UNAVERAGED}
            with self.average.in_use():
                metrics |= self._evaluated(heads=False)
            metrics |= unaveraged
        if self.validation is not None:
            self._validated.append(metrics["validation_accuracy"])
        return metrics

    def _evaluated(self, *, heads: bool) -> dict[str, Any]:
        self.processes.share_buffers(self.net)
        over: Any = {"summed": self.processes.summed, "gathered": self.processes.gathered}
        result = evaluate(
            self.net,
            self.test,
            heads=heads,
            autocast=self.settings.autocast,
            **over,
        )
        metrics: dict[str, Any] = {"test_accuracy": result.accuracy, "test_loss": result.loss}
        if result.top5_accuracy is not None:
            metrics["test_top5_accuracy"] = result.top5_accuracy
        skipped = [*self.skipped, *self.test.skipped]
        if self.validation is not None:
            chosen = evaluate(self.net, self.validation, autocast=self.settings.autocast, **over)
            metrics |= {"validation_accuracy": chosen.accuracy, "validation_loss": chosen.loss}
            skipped += self.validation.skipped
        skipped = self.processes.of_all(skipped)
        if any(skipped):
            metrics["skipped_images"] = [name for names in skipped for name in names]
        if heads:
            metrics["head_accuracies"] = [
                accuracy for heads in self.processes.of_modules(result.head_accuracies) for accuracy in heads
            ]
        return metrics

    def is_over(self) -> bool:
        patience, values = self.settings.early_stopping, self._validated
        return patience is not None and len(values) > patience and max(values[-patience:]) <= max(values[:-patience])

    def begin_training(self) -> None:
        super().begin_training()
        for part in self.frozen:
            part.eval()

    def resume(self, checkpoint: Checkpoint = "last") -> None:
        super().resume(checkpoint)
        if self.settings.early_stopping is not None:
            rows = self.processes.from_first(lambda: self.folder.rows_before(self.epoch) if self.folder else [])
            self._validated = [row["validation_accuracy"] for row in rows]
        self.net.steps = (self.epoch - 1) * len(self.batches) + self.step

"""Fine-tuning of a detector as a loop: one optimizer over all losses, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from locallearn._torch.device import mixed
from locallearn._utils.errors import LocalLearnError
from locallearn.detection.metrics import average_precision
from locallearn.detection.settings import DetectSettings
from locallearn.training import Loop

LOSSES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
"""The losses of torchvision's Mask R-CNN."""


class DetectorFit(Loop):
    """Fine-tunes torchvision's Mask R-CNN. See `Loop` for epochs, checkpoints and resuming.

    A row of metrics has epoch, lr (of the last step), train_loss (the sum of all), losses (by their names), seconds (of
    training alone), and those of `average_precision`.

    Args:
        net: the detector, on its device.
        batches: of the training split.
        test: the test split, a `Coco`.
        settings: how to train.
        folder: where metrics and checkpoints go.
        watcher: learns how training proceeds.
    """

    settings: DetectSettings

    def train_step(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], *, learning_rate: float
    ) -> Tensor:
        for group in self.stepper.param_groups:
            group["lr"] = learning_rate
        on_device = [{name: part.to(self.device) for name, part in target.items()} for target in targets]
        with mixed(self.device, self.settings.autocast):
            by_name = self.net([image.to(self.device) for image in images], on_device)
        losses = torch.stack([by_name[name].float() for name in LOSSES])
        total = losses.sum()
        if not torch.isfinite(total):
            raise LocalLearnError(
                f"the loss became {total.item()} in epoch {self.epoch}, step {self.step + 1}: take a lower"
                " --optimizer.lr."
            )
        total.backward()
        self.stepper.step()
        self.stepper.zero_grad()
        return losses.detach().double()

    def loss_count(self) -> int:
        return len(LOSSES)

    def loss_metrics(self, losses: list[float]) -> dict[str, Any]:
        return {"train_loss": sum(losses), "losses": dict(zip(LOSSES, losses, strict=True))}

    def evaluate(self) -> dict[str, Any]:
        return average_precision(
            self.net, self.test, device=self.device, workers=self.settings.workers, autocast=self.settings.autocast
        )

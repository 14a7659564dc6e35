"""Fine-tuning of a detector as a loop: one optimizer over all losses, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._torch.device import mixed
from locallearn._utils.errors import LocalLearnError
from locallearn.detection.coco import Coco
from locallearn.detection.loading import TrainingBatches
from locallearn.detection.metrics import average_precision
from locallearn.detection.settings import DetectSettings
from locallearn.training import Loop, RunFolder, Watcher, load_weights

LOSSES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
"""The losses of torchvision's Mask R-CNN."""


class DetectorFit(Loop):
    """Fine-tunes torchvision's Mask R-CNN. See `Loop` for epochs, checkpoints and resuming.

    A row of metrics has epoch, lr (of the last step), train_loss (the sum of all), losses (by their names), seconds (of
    training alone), and those of `average_precision`.

    Args:
        detector: on its device.
        train, test: splits.
        settings: how to train.
        folder: where metrics and checkpoints go.
        watcher: learns how training proceeds.
    """

    def __init__(
        self,
        detector: nn.Module,
        train: Coco,
        test: Coco,
        settings: DetectSettings,
        *,
        folder: RunFolder,
        watcher: Watcher | None = None,
    ) -> None:
        batches = TrainingBatches(train, batch=settings.batch, seed=settings.seed, workers=settings.workers)
        super().__init__(detector, batches, epochs=settings.epochs, folder=folder, watcher=watcher)
        self.test, self.settings = test, settings
        self.optimizer = settings.optimizer.make([p for p in detector.parameters() if p.requires_grad])

    def learning_rate(self, step: int) -> float:
        return self.settings.lr(epoch=self.epoch, step=step, steps=len(self.batches))

    def train_step(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], *, learning_rate: float
    ) -> Tensor:
        for group in self.optimizer.param_groups:
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
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses.detach().double()

    def loss_metrics(self, losses: Tensor) -> dict[str, Any]:
        values = losses.tolist()
        return {"train_loss": sum(values), "losses": dict(zip(LOSSES, values, strict=True))}

    def evaluate(self) -> dict[str, Any]:
        settings = self.settings
        return average_precision(
            self.net, self.test, device=self.device, workers=settings.workers, autocast=settings.autocast
        )

    def state_dict(self) -> dict[str, Any]:
        return {"detector": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any], file: Path) -> None:
        load_weights(self.net, state["detector"], file=file, name=type(self.net).__name__)
        self.optimizer.load_state_dict(state["optimizer"])

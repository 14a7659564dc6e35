"""The training loop of a detector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._torch.device import random_state, set_random_state
from locallearn._utils.errors import LocalLearnError
from locallearn.detection.coco import Coco, TrainingImages
from locallearn.detection.loading import loaded
from locallearn.detection.metrics import METRICS, average_precision
from locallearn.detection.settings import DetectSettings
from locallearn.training import Interrupted, RunFolder, Watcher, load_checkpoint, load_weights, save_checkpoint


class DetectorFit:
    """Epochs of steps, each with an evaluation and a checkpoint behind it."""

    def __init__(
        self,
        detector: nn.Module,
        train: Coco,
        test: Coco,
        settings: DetectSettings,
        folder: RunFolder,
        watcher: Watcher,
        device: torch.device,
    ) -> None:
        self.detector, self.test, self.settings = detector, test, settings
        self.folder, self.watcher, self.device = folder, watcher, device
        self.images = TrainingImages(train, seed=settings.seed)
        self.optimizer = settings.optimizer.make([p for p in detector.parameters() if p.requires_grad])
        self.epoch = 1

    def run(self) -> None:
        """Train what is left of the epochs.

        Raises:
            Interrupted: the watcher asked to stop; what an unfinished epoch did is lost.
        """
        self.folder.keep_epochs(self.epoch - 1)
        with self.folder.events(self.epoch) as events:
            for epoch in range(self.epoch, self.settings.epochs + 1):
                row = self._train_epoch(epoch)
                row |= average_precision(
                    self.detector,
                    self.test,
                    device=self.device,
                    workers=self.settings.workers,
                    autocast=self.settings.autocast,
                )
                self.folder.add_epoch(row)
                for name in ("lr", "train_loss", *METRICS):
                    events.add_scalar(name, row[name], epoch)
                events.flush()
                self._save(epoch)
                self.watcher.epoch(row)
                if self.watcher.stop_requested() and epoch < self.settings.epochs:
                    raise Interrupted

    def resume(self) -> None:
        """Go back to the folder's checkpoint."""
        state = load_checkpoint(self.folder.last)
        load_weights(self.detector, state["detector"], file=self.folder.last, name=type(self.detector).__name__)
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = state["epoch"] + 1
        set_random_state(state["random"], self.device)

    def _save(self, epoch: int) -> None:
        state = {
            "detector": self.detector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(self.device),
            "epoch": epoch,
        }
        save_checkpoint(state, self.folder.last)

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        start = perf_counter()
        batches = self._batches(epoch)
        self.detector.train()
        sums: dict[str, float] = {}
        lr = 0.0
        for step, batch in enumerate(loaded(self.images, batches, workers=self.settings.workers)):
            lr = self.settings.lr(epoch=epoch, step=step, steps=len(batches))
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            losses = self._step(batch)
            total = sum(losses.values())
            if not math.isfinite(total):
                raise LocalLearnError(
                    f"the loss became {total} in epoch {epoch}, step {step + 1}: take a lower --optimizer.lr."
                )
            sums = {name: sums.get(name, 0.0) + value * len(batch) for name, value in losses.items()}
            self.watcher.batch(epoch=epoch, step=step + 1, steps=len(batches), loss=total)
            if self.watcher.stop_requested():
                raise Interrupted
        means = {name: value / len(self.images) for name, value in sums.items()}
        seconds = perf_counter() - start
        return {"epoch": epoch, "lr": lr, "train_loss": sum(means.values()), "losses": means, "seconds": seconds}

    def _step(self, batch: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, float]:
        """One step of the optimizer, unless a loss is not finite; the losses by their names."""
        images = [image.to(self.device) for image, _ in batch]
        targets = [{name: part.to(self.device) for name, part in target.items()} for _, target in batch]
        dtype = self.settings.autocast
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            losses = self.detector(images, targets)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if torch.isfinite(total):
            total.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _batches(self, epoch: int) -> list[list[tuple[int, int]]]:
        """Indices of each batch, with the epoch; they depend on the seed and the epoch alone."""
        draw = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + epoch)
        order = [(index, epoch) for index in torch.randperm(len(self.images), generator=draw).tolist()]
        return [order[at : at + self.settings.batch] for at in range(0, len(order), self.settings.batch)]

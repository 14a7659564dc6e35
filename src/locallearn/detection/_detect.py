"""A detection run: build, fine-tune, evaluate, write down."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from locallearn._device import device_name, device_of, random_state, set_random_state
from locallearn._errors import LocalLearnError
from locallearn._files import write_whole
from locallearn._torchvision import import_torchvision
from locallearn.detection._coco import Coco, TrainingImages, refuse_other_categories
from locallearn.detection._detector import mask_rcnn
from locallearn.detection._evaluate import average_precision
from locallearn.detection._settings import DetectSettings
from locallearn.export import load_exported
from locallearn.training import (
    Interrupted,
    RunFolder,
    Trained,
    Watcher,
    as_yaml,
    load_checkpoint,
    load_run,
    save_checkpoint,
)

METRICS = ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75")


def detect(
    settings: DetectSettings, folder: Path, *, resume: bool = False, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Fine-tune Mask R-CNN on a trained backbone and evaluate it on COCO, as in AugLocal (A.7, Table 12).

    Args:
        settings: what to train and how.
        folder: the run folder; new, unless `resume`. It holds settings.yaml, environment.json, metrics.jsonl (a line
            for each epoch), last.pt and result.json.
        resume: go on behind the last whole epoch.
        watcher: told how training goes.

    Returns:
        The summary that is also in `result.json`: box_ap, box_ap50, box_ap75, mask_ap, mask_ap50, mask_ap75 (0 to 1),
        epochs, seconds_per_epoch, parameters, folder.

    Raises:
        LocalLearnError: a file, a folder or a package is missing, or the backbone does not fit.
        Interrupted: the watcher asked to stop; what the unfinished epoch did is lost.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = device_of(settings.device)
    _refuse_missing_operators(device)
    train = Coco(settings.coco, "train2017", images=settings.images)
    test = Coco(settings.coco, "val2017", images=settings.images)
    refuse_other_categories(train, test)
    trained = backbone_of(settings)
    torch.manual_seed(settings.seed)
    detector = mask_rcnn(
        trained,
        categories=len(train.categories),
        frozen_stages=settings.frozen_stages,
        min_size=settings.min_size,
        max_size=settings.max_size,
        channels=settings.channels,
        regions=settings.regions,
        proposals=settings.proposals,
    ).to(device)
    run = RunFolder(folder)
    if resume:
        run.refuse_other_settings(as_yaml(settings))
    else:
        run.create(as_yaml(settings), device=device_name(device), command=("detect",))
    fit = _Fit(detector, train, test, settings, run, watcher or Watcher(), device)
    if resume and run.last.exists():
        fit.resume()
    fit.run()
    rows = run.rows()
    result = {
        **{name: rows[-1][name] for name in METRICS},
        "epochs": len(rows),
        "seconds_per_epoch": sum(row["seconds"] for row in rows) / len(rows),
        "parameters": sum(parameter.numel() for parameter in detector.parameters()),
        "backbone": {"source": str(settings.source), "model": trained.name, **_accuracy(trained)},
        "folder": str(folder),
    }
    write_whole(run.result, (json.dumps(result, indent=2) + "\n").encode())
    return result


def backbone_of(settings: DetectSettings) -> Trained:
    """The trained backbone that the settings name.

    Raises:
        LocalLearnError: there is none.
    """
    source = settings.source
    if source is None:
        raise LocalLearnError("the backbone is missing: give the folder of a run or of an export.")
    if (source / "config.json").exists():
        return load_exported(source)
    return load_run(source, checkpoint=settings.checkpoint)


class _Fit:
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
        self.detector.load_state_dict(state["detector"])
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
        loader = DataLoader(self.images, batch_sampler=batches, collate_fn=list, num_workers=self.settings.workers)
        self.detector.train()
        sums: dict[str, float] = {}
        lr = 0.0
        for step, batch in enumerate(loader):
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


def _accuracy(trained: Trained) -> dict[str, Any]:
    return {"test_accuracy": trained.how.get("test_accuracy")}


def _refuse_missing_operators(device: torch.device) -> None:
    import_torchvision()
    from torchvision.extension import _has_ops  # pyright: ignore[reportMissingImports]

    if device.type != "cpu" and not _has_ops():
        raise LocalLearnError(
            "torchvision's compiled operators do not fit this PyTorch, and a detector needs them on a GPU: install a"
            " torchvision made for it, or use --device cpu."
        )

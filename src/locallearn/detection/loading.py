"""The images of COCO's splits, decoded by worker processes in a given order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from locallearn._utils.errors import LocalLearnError
from locallearn.data.files.workers import in_order
from locallearn.detection.coco import Coco


class TrainingImages(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images of a split that have objects, with their targets; half of them flipped.

    Its keys are (index, epoch); the flip depends on them and the seed alone.
    """

    def __init__(self, coco: Coco, *, seed: int) -> None:
        self.coco, self.seed = coco, seed
        self.ids = [key for key in coco.ids if coco.objects(key)]
        if not self.ids:
            raise LocalLearnError(f"{coco.annotations} has no objects with masks to train on.")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        index, epoch = key
        image = self.coco.image(self.ids[index])
        _, height, width = image.shape
        target = self.coco.target(self.ids[index], (height, width))
        if np.random.default_rng((self.seed, epoch, index)).random() < 0.5:
            image, target["masks"] = image.flip(2), target["masks"].flip(2)
            left, top, right, bottom = target["boxes"].unbind(1)
            target["boxes"] = torch.stack([width - right, top, width - left, bottom], dim=1)
        return image, target


class TrainingBatches:
    """Batches of training images, in an order that depends on the seed and the epoch alone (`data.Batches`).

    Args:
        coco: the split.
        batch: images in a batch; the last one holds the rest.
        seed: of order and flips.
        workers: processes that decode images.
    """

    skipped: tuple[str, ...] = ()

    def __init__(self, coco: Coco, *, batch: int, seed: int, workers: int) -> None:
        self.images = TrainingImages(coco, seed=seed)
        self.batch, self.seed, self.workers = batch, seed, workers

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """Lists of images (3, height, width) and of their targets."""
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        keys = [(index, epoch) for index in torch.randperm(len(self.images), generator=draw).tolist()]
        batches = [keys[at : at + self.batch] for at in range(start * self.batch, len(keys), self.batch)]
        for items in _loaded(self.images, batches, workers=self.workers):
            images, targets = zip(*items, strict=True)
            yield images, targets


class _IdAndImage(Dataset[tuple[int, Tensor]]):
    def __init__(self, coco: Coco) -> None:
        self.coco = coco

    def __getitem__(self, key: int) -> tuple[int, Tensor]:
        return key, self.coco.image(key)


def evaluation_images(coco: Coco, *, workers: int) -> Iterator[tuple[int, Tensor]]:
    """All images (3, height, width) of a split with their ids, decoded by `workers` processes.

    Raises:
        LocalLearnError: an image cannot be read, or a process died.
    """
    for (item,) in _loaded(_IdAndImage(coco), [[key] for key in coco.ids], workers=workers):
        yield item


def _loaded(images: Dataset[Any], batches: Sequence[Sequence[Any]], *, workers: int) -> Iterator[list[Any]]:
    """The items of a data set, batch by batch of its keys."""
    for items in in_order(_Batched(images), batches, workers=workers):
        if isinstance(items, LocalLearnError):
            raise items
        yield items


class _Batched(Dataset[Any]):
    """Several items at once, or the error of one: raised in a worker, it would come with the worker's traceback."""

    def __init__(self, images: Dataset[Any]) -> None:
        self.images = images

    def __getitem__(self, keys: Sequence[Any]) -> list[Any] | LocalLearnError:
        try:
            return [self.images[key] for key in keys]
        except LocalLearnError as error:
            return error

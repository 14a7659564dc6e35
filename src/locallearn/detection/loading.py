"""The images of COCO's splits, decoded by worker processes in a given order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from locallearn._utils.errors import LocalLearnError
from locallearn.data.files.workers import in_order
from locallearn.detection.coco import Coco


class TrainingBatches:
    """Batches of the images that have objects; the seed and the epoch alone decide their order (`data.Batches`).

    Args:
        coco: the split.
        batch: images in a batch; the last one holds the rest.
        seed: of order and flips.
        workers: processes that decode images.
    """

    skipped: tuple[str, ...] = ()

    def __init__(self, coco: Coco, *, batch: int, seed: int, workers: int) -> None:
        self.coco, self.batch, self.seed, self.workers = coco, batch, seed, workers
        self.ids = [key for key in coco.ids if coco.objects(key)]
        if not self.ids:
            raise LocalLearnError(f"{coco.annotations} has no objects with masks to train on.")

    def __len__(self) -> int:
        return -(-len(self.ids) // self.batch)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """Lists of images (3, height, width) and of their targets."""
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        keys = [(index, epoch) for index in torch.randperm(len(self.ids), generator=draw).tolist()]
        batches = [keys[at : at + self.batch] for at in range(start * self.batch, len(keys), self.batch)]
        for items in _loaded(self.item, batches, workers=self.workers):
            images, targets = zip(*items, strict=True)
            yield images, targets

    def item(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        """An image and its target from (index, epoch): half of them flipped, by the key and the seed alone."""
        index, epoch = key
        image = self.coco.image(self.ids[index])
        _, height, width = image.shape
        target = self.coco.target(self.ids[index], (height, width))
        if np.random.default_rng((self.seed, epoch, index)).random() < 0.5:
            image, target["masks"] = image.flip(2), target["masks"].flip(2)
            left, top, right, bottom = target["boxes"].unbind(1)
            target["boxes"] = torch.stack([width - right, top, width - left, bottom], dim=1)
        return image, target


def evaluation_images(coco: Coco, *, workers: int) -> Iterator[tuple[int, Tensor]]:
    """All images (3, height, width) of a split with their ids, decoded by `workers` processes.

    Raises:
        LocalLearnError: an image cannot be read, or a process died.
    """
    images = _loaded(coco.image, [[key] for key in coco.ids], workers=workers)
    return ((key, image) for key, (image,) in zip(coco.ids, images, strict=True))


def _loaded(read: Callable[[Any], Any], batches: Sequence[Sequence[Any]], *, workers: int) -> Iterator[list[Any]]:
    """What `read` makes of each key, batch by batch."""
    for items in in_order(_Batched(read), batches, workers=workers):
        if isinstance(items, LocalLearnError):
            raise items
        yield items


class _Batched(Dataset[Any]):
    """Several items at once, or the error of one: raised in a worker, it would come with the worker's traceback."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self.read = read

    def __getitem__(self, keys: Sequence[Any]) -> list[Any] | LocalLearnError:
        try:
            return [self.read(key) for key in keys]
        except LocalLearnError as error:
            return error

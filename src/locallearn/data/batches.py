"""Batches in an order that depends on seed and epoch alone: the same for every rule, and resumable anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import islice
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.typed_settings import TypedSettings
from locallearn.data.augmentation import Augmentation, augment, normalise, rand_augment, rand_augment_transform
from locallearn.data.order import generator_of, order_of, seed_of

_RAND_AUGMENT = 2
"""Tells the seeds of this draw from those of the order and of crops."""


class Batches(Protocol):
    """Pairs that training reads: images (batch, channels, height, width), and labels (batch,) or (batch, classes)."""

    @property
    def skipped(self) -> Sequence[str]:
        """Images that could not be read and were left out since the epoch was last asked for."""
        ...

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch (from 1), from batch `start` (from 0) on; the same whenever it is asked."""
        ...


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images as uint8, (n, height, width, channels), and labels as int64, (n,).

    Where images have several labels, or probabilities, labels are (n, classes): numbers from 0 to 1.
    """

    images: NDArray[np.uint8]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, rows: NDArray[np.int64]) -> Split:
        """Some of the images."""
        return Split(images=self.images[rows], labels=self.labels[rows])


@dataclass(frozen=True, kw_only=True)
class Feed(TypedSettings):
    """How batches come to the network.

    Attributes:
        batch: images in a batch of training; the last one of an epoch holds the rest.
        device: where batches are used.
        channels_last: memory format of the batches.
        workers: processes that decode images, at most as many as there are processors; 0 decodes between the training
            steps. Images do not depend on it.
        bad_images: files that are no readable image: "refuse" stops with the first one's path, "skip" leaves them
            out of their batch.
        part, parts: of every batch, this part (from 0) of so many is read: that of a process among several, which
            share each batch. See `part_of`.
        rand_augment: number of operations and their magnitude (0 to 30) of torchvision's RandAugment, which follows the
            other augmentations of training; none by default.
        ahead: whether the part begins with the image before it, that of the first part with the batch's last one:
            `MixedBatches` mixes each image with the one before.
    """

    batch: int
    device: torch.device | str = "cpu"
    channels_last: bool = True
    workers: int = 4
    bad_images: Literal["refuse", "skip"] = "refuse"
    part: int = 0
    parts: int = 1
    rand_augment: tuple[int, ...] | None = None
    ahead: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 0:
            raise LocalLearnError(f"workers={self.workers} must not be negative.")
        if not 0 <= self.part < self.parts:
            raise LocalLearnError(f"part={self.part} must be at least 0 and below parts={self.parts}.")
        if self.rand_augment is not None and not _is_rand_augment(self.rand_augment):
            raise LocalLearnError(
                f"rand_augment={list(self.rand_augment)}: give how many operations, at least 1, and their magnitude,"
                " from 0 to 30, as in [2,9]."
            )

    def part_of(self, size: int) -> NDArray[np.int64]:
        """Which images of a batch of this size are read; the first parts have one more where it does not divide."""
        share, rest = divmod(size, self.parts)
        start = self.part * share + min(self.part, rest)
        return np.arange(start - self.ahead, start + share + (self.part < rest)) % size


def _is_rand_augment(values: Sequence[int]) -> bool:
    return len(values) == 2 and values[0] >= 1 and 0 <= values[1] <= 30


@dataclass(kw_only=True)
class OrderedBatches:
    """Batches of images that are known by their numbers.

    Args:
        labels: of all images, (n,), or (n, classes) as in `Split`.
        mean, std: of each channel, in units of pixel values (0 to 255).
        feed: how batches come to the network.
        seed: of order and augmentation; None for evaluation: no augmentation, no shuffling.
        drop_single: leave out a last batch of one image.
        chosen: numbers of the images to use; all by default.
    """

    labels: NDArray[Any]
    mean: Sequence[float]
    std: Sequence[float]
    feed: Feed
    seed: int | None = None
    drop_single: bool = False
    chosen: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        self.skipped: list[str] = []

    @property
    def images_in_epoch(self) -> int:
        """How many images an epoch has."""
        return len(self.labels if self.chosen is None else self.chosen)

    def __len__(self) -> int:
        full, rest = divmod(self.images_in_epoch, self.feed.batch)
        return full + (rest > self.drop_single)

    def rows(self, epoch: int, start: int) -> list[NDArray[np.int64]]:
        """The numbers of the images in each whole batch, from batch `start` on."""
        order, size = order_of(self.images_in_epoch, seed=self.seed, epoch=epoch), self.feed.batch
        if self.chosen is not None:
            order = self.chosen[order]
        return [order[index * size : (index + 1) * size] for index in range(start, len(self))]

    def in_this_order(self, chosen: NDArray[np.int64], *, batch: int) -> Self:
        """Batches of these images in this order, without augmentation."""
        return replace(self, chosen=chosen, seed=None, feed=replace(self.feed, batch=batch))

    def normalised(self, images: Tensor) -> Tensor:
        """As float32, (batch, channels, height, width), from uint8, (batch, height, width, channels)."""
        return normalise(images, self.mean, self.std, channels_last=self.feed.channels_last)


@dataclass(kw_only=True)
class TensorBatches(OrderedBatches):
    """Images held as uint8 on the training device; they are shuffled, augmented and normalised there.

    Args:
        images: uint8, (n, height, width, channels).
        augmentation: of images whose `seed` is not None.
    """

    images: NDArray[np.uint8]
    augmentation: Augmentation

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed is not None and self.feed.rand_augment is not None:
            rand_augment_transform(*self.feed.rand_augment)  # raises at once if torchvision is missing
            if (channels := self.images.shape[3]) not in (1, 3):
                raise LocalLearnError(f"rand_augment takes images of 1 or 3 channels, not {channels}: leave it out.")
        self._images, self._labels = (torch.from_numpy(x).to(self.feed.device) for x in (self.images, self.labels))

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for index, rows in enumerate(self.rows(epoch, start), start):
            part = self.feed.part_of(len(rows))
            chosen = torch.from_numpy(rows[part]).to(self._images.device)
            images = self._images[chosen]
            if self.seed is not None:
                generator = generator_of(self.seed, epoch, index)
                images = augment(images, self.augmentation, generator, batch=len(rows), part=torch.from_numpy(part))
                if self.feed.rand_augment is not None:
                    seeds = [seed_of(self.seed, epoch, row, _RAND_AUGMENT) for row in rows[part].tolist()]
                    rand_augment(images, *self.feed.rand_augment, seeds=seeds)
            yield self.normalised(images), self._labels[chosen]


@dataclass
class LoaderBatches:
    """A user's own `DataLoader`; its random choices are seeded by seed and epoch.

    Args:
        loader: yields (images, labels); PyTorch's random numbers that it draws are seeded anew at each epoch.
        device: where batches are brought.
        seed: of each epoch's random choices.
        channels_last: memory format of the batches.
    """

    loader: DataLoader[Any]
    _: KW_ONLY
    device: torch.device | str = "cpu"
    seed: int = 0
    channels_last: bool = True
    skipped: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        random = generator_of(self.seed, epoch)
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        for generator in (self.loader.generator, getattr(self.loader.sampler, "generator", None)):
            if generator is not None:
                generator.manual_seed(random.initial_seed())
        for images, labels in islice(_drawing_from(random.get_state(), self.loader), start, None):
            images = images.to(self.device, memory_format=memory_format, non_blocking=True)
            yield images, labels.to(self.device, non_blocking=True)


def _drawing_from(state: Tensor, loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Let the loader draw from random numbers of its own, so that they do not depend on what training draws."""
    batches, batch = None, None
    while True:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            batches = batches or iter(loader)
            batch = next(batches, None)
            state = torch.get_rng_state()
        if batch is None:
            return
        yield batch

"""Batches in an order that depends on seed and epoch alone: the same for every rule, and resumable anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from locallearn.data.augmentation import Augmentation, augment, normalise
from locallearn.data.order import generator_of, order_of


class Batches(Protocol):
    """What training reads, as pairs: images (batch, channels, height, width) and labels (batch,)."""

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
    """Images as uint8, (n, height, width, channels), and labels as int64, (n,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


class TensorBatches:
    """A split held as uint8 on the training device; it is shuffled, augmented and normalised there.

    Args:
        split: the images.
        mean, std: of each channel, in units of pixel values (0 to 255).
        batch: images in a batch; the last one holds the rest.
        device: where they live.
        augmentation: None for evaluation: no augmentation, no shuffling.
        seed: of order and augmentation.
        channels_last: memory format of the batches.
        drop_single: leave out a last batch of one image.
    """

    def __init__(
        self,
        split: Split,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch: int,
        device: torch.device | str = "cpu",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        channels_last: bool = True,
        drop_single: bool = False,
    ) -> None:
        self.images = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.mean, self.std = tuple(mean), tuple(std)
        self.batch, self.seed = batch, seed
        self.augmentation, self.channels_last = augmentation, channels_last
        self.count = len(split) - (drop_single and len(split) % batch == 1)
        self.skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return -(-self.count // self.batch)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = order_of(len(self.labels), seed=self.seed, epoch=epoch, shuffled=self.augmentation is not None)
        rows = torch.from_numpy(order[: self.count]).to(self.images.device)
        for index in range(start, len(self)):
            chosen = rows[index * self.batch : (index + 1) * self.batch]
            images = self.images[chosen]
            if self.augmentation is not None:
                images = augment(images, self.augmentation, generator_of(self.seed, epoch, index))
            yield normalise(images, self.mean, self.std, channels_last=self.channels_last), self.labels[chosen]


class LoaderBatches:
    """A user's own `DataLoader`; its random choices are seeded by seed and epoch.

    Args:
        loader: yields (images, labels); PyTorch's random numbers that it draws are seeded anew at each epoch.
        device: where batches are brought.
        seed: of each epoch's random choices.
        channels_last: memory format of the batches.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        channels_last: bool = True,
    ) -> None:
        self.loader, self.device, self.seed = loader, device, seed
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        random = generator_of(self.seed, epoch)
        for generator in (self.loader.generator, getattr(self.loader.sampler, "generator", None)):
            if generator is not None:
                generator.manual_seed(random.initial_seed())
        for images, labels in islice(_drawing_from(random.get_state(), self.loader), start, None):
            images = images.to(self.device, memory_format=self.memory_format, non_blocking=True)
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

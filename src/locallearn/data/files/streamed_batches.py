"""`StreamedBatches`: worker processes decode and augment images in files, in an order that is known beforehand."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from locallearn._torch.vision_libraries import import_torchvision
from locallearn._utils.errors import LocalLearnError, describe
from locallearn._utils.optional_imports import optional
from locallearn._utils.quantities import counted
from locallearn.data.augmentation import rand_augment_transform
from locallearn.data.batches import OrderedBatches
from locallearn.data.files.workers import in_order
from locallearn.data.order import seed_of

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
_RESIZED = 256 / 224  # shorter side of a test image to its crop
LARGEST_IMAGE = 2**28  # bytes of a file


@dataclass(frozen=True, kw_only=True)
class Files(ABC):
    """Encoded images that can be read in any order; arrays hold one entry for each image.

    Attributes:
        labels: of each image, (n,).
    """

    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def name(self, index: int) -> str:
        """Where an image is, for a person."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """An image's bytes, as JPEG, PNG, ..."""

    def chosen(self, rows: NDArray[np.int64]) -> Self:
        """Some of the images."""
        arrays = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)


@dataclass(kw_only=True)
class StreamedBatches(OrderedBatches):
    """The batches of a split in files.

    The augmentation of an image depends on the seed, the epoch and the image alone, not on the worker that decodes it.
    So an epoch can start at any batch, without reading those before it.

    Args:
        files: the images.
        side: height and width of the images as the network sees them.
    """

    files: Files
    side: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _transform(self.side, self.seed is not None, self.feed.rand_augment)  # raises at once without torchvision

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        self.skipped = []
        device = torch.device(self.feed.device)
        images = _Decoded(self.files, self.side, self.seed, self.feed.rand_augment)
        keys = [(epoch, rows[self.feed.part_of(len(rows))]) for rows in self.rows(epoch, start)]
        decoded = in_order(images, keys, workers=self.feed.workers, pin_memory=device.type == "cuda")
        for images, labels, bad in decoded:
            if bad:
                self._leave_out(bad, len(labels))
            yield self.normalised(images.to(device, non_blocking=True)), labels.to(device, non_blocking=True)

    def _leave_out(self, bad: list[str], left: int) -> None:
        if self.feed.bad_images == "refuse":
            raise LocalLearnError(
                f"{bad[0]} is no readable image: mend or remove it, or leave such images out with --bad-images skip."
            )
        self.skipped += bad
        if left < min(2, left + len(bad)):
            raise LocalLearnError(
                f"of a batch of {counted(left + len(bad), 'image')} {len(bad)} cannot be read, {bad[0]} for one: mend"
                " the files."
            )


@dataclass
class _Decoded(Dataset[tuple[Tensor, Tensor, list[str]]]):
    """From an epoch and the rows of a batch to images (uint8, batch x side x side x 3), labels and bad files."""

    files: Files
    side: int
    seed: int | None
    rand_augment: tuple[int, ...] | None = None

    def __getitem__(self, key: tuple[int, NDArray[np.int64]]) -> tuple[Tensor, Tensor, list[str]]:
        epoch, rows = key
        transform = _transform(self.side, self.seed is not None, self.rand_augment)
        images = torch.empty((len(rows), self.side, self.side, 3), dtype=torch.uint8)
        good: list[int] = []
        bad: list[str] = []
        with torch.random.fork_rng(devices=[]):
            for row in rows.tolist():
                try:
                    image = _decode(self.files.read(row))
                except Exception as error:  # Pillow fails in many ways on garbled bytes
                    bad.append(f"{self.files.name(row)} ({describe(error)})")
                    continue
                if self.seed is not None:
                    torch.default_generator.manual_seed(seed_of(self.seed, epoch, row))
                images[len(good)] = transform(image).permute(1, 2, 0)
                good.append(row)
        return images[: len(good)], torch.from_numpy(self.files.labels[good]), bad


def _decode(content: bytes) -> Tensor:
    """An image as uint8 (3, height, width)."""
    pillow = optional("PIL.Image", extra="vision")
    try:
        with pillow.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.mode.startswith(("I", "F")):  # which Pillow would clip
                raise ValueError(f"pixels of mode {image.mode} instead of 8 bits a channel")
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except pillow.UnidentifiedImageError as error:  # whose own text names an address in memory
        raise ValueError(f"none of {', '.join(_FORMATS)}") from error


@lru_cache
def _transform(side: int, augmented: bool, rand_augment: tuple[int, ...] | None = None) -> Callable[[Tensor], Tensor]:
    """The transform of an image; it draws from PyTorch's global generator."""
    import_torchvision()
    v2: Any = optional("torchvision.transforms.v2", extra="vision")
    if augmented:
        more = [] if rand_augment is None else [rand_augment_transform(*rand_augment)]
        return v2.Compose([v2.RandomResizedCrop(side, antialias=True), v2.RandomHorizontalFlip(), *more])
    return v2.Compose([v2.Resize(round(side * _RESIZED), antialias=True), v2.CenterCrop(side)])

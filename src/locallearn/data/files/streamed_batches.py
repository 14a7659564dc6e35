"""`StreamedBatches`: worker processes decode and augment images in files, in an order that is known beforehand."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from locallearn._torch.vision_libraries import import_torchvision
from locallearn._utils.errors import LocalLearnError, describe
from locallearn._utils.optional_imports import optional
from locallearn.data.augmentation import normalise
from locallearn.data.data_set import Feed
from locallearn.data.files.workers import in_order
from locallearn.data.order import order_of, seed_of

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
_RESIZED = 256 / 224  # shorter side of a test image to its crop
LARGEST_IMAGE = 2**28  # bytes of a file


class Files(Protocol):
    """Encoded images that can be read in any order."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of each image, (n,)."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def name(self, index: int) -> str:
        """Where an image is, for a person."""
        ...

    def read(self, index: int) -> bytes:
        """An image's bytes, as JPEG, PNG, ..."""
        ...

    def chosen(self, rows: NDArray[np.int64]) -> Files:
        """Some of the images."""
        ...


class StreamedBatches:
    """The batches of a split in files.

    The augmentation of an image depends on the seed, the epoch and the image alone, not on the worker that decodes it.
    So an epoch can start at any batch, without reading those before it.

    Args:
        files: the images.
        side: height and width of the images as the network sees them.
        mean, std: of each channel, in units of pixel values (0 to 255).
        feed: size of batches, device, workers, and whether bad images are refused or skipped.
        augmented: shuffled, and augmented; or as they are, for evaluation.
        seed: of order and augmentation.
        drop_single: leave out a last batch of one image.
    """

    def __init__(
        self,
        files: Files,
        *,
        side: int,
        mean: Sequence[float],
        std: Sequence[float],
        feed: Feed,
        augmented: bool = False,
        seed: int = 0,
        drop_single: bool = False,
    ) -> None:
        self.images = _Decoded(files, side=side, seed=seed if augmented else None)
        self.mean, self.std, self.feed = tuple(mean), tuple(std), feed
        self.augmented, self.seed = augmented, seed
        self.count = len(files) - (drop_single and len(files) % feed.batch == 1)
        self.skipped: list[str] = []
        _transform(side, augmented)  # raises at once if torchvision is missing

    def __len__(self) -> int:
        return -(-self.count // self.feed.batch)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        self.skipped = []
        size, device = self.feed.batch, torch.device(self.feed.device)
        rows = order_of(len(self.images.files), seed=self.seed, epoch=epoch, shuffled=self.augmented)[: self.count]
        keys = [(epoch, rows[i * size : (i + 1) * size]) for i in range(start, len(self))]
        decoded = in_order(self.images, keys, workers=self.feed.workers, pin_memory=device.type == "cuda")
        for images, labels, bad in decoded:
            if bad:
                self._leave_out(bad, len(labels))
            images = images.to(device, non_blocking=True)
            yield (
                normalise(images, self.mean, self.std, channels_last=self.feed.channels_last),
                labels.to(device, non_blocking=True),
            )

    def _leave_out(self, bad: list[str], left: int) -> None:
        if self.feed.bad_images == "refuse":
            raise LocalLearnError(
                f"{bad[0]} is no readable image: mend or remove it, or leave such images out with --bad-images skip."
            )
        self.skipped += bad
        if left < min(2, left + len(bad)):
            raise LocalLearnError(
                f"of a batch of {left + len(bad)} images {len(bad)} cannot be read, {bad[0]} for one: mend the files."
            )


class _Decoded(Dataset[tuple[Tensor, Tensor, list[str]]]):
    """From an epoch and the rows of a batch to images (uint8, batch x side x side x 3), labels and bad files."""

    def __init__(self, files: Files, *, side: int, seed: int | None) -> None:
        self.files, self.side, self.seed = files, side, seed

    def __getitem__(self, key: tuple[int, NDArray[np.int64]]) -> tuple[Tensor, Tensor, list[str]]:
        epoch, rows = key
        transform = _transform(self.side, self.seed is not None)
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
def _transform(side: int, augmented: bool) -> Callable[[Tensor], Tensor]:
    """The transform of an image; it draws from PyTorch's global generator."""
    import_torchvision()
    v2: Any = optional("torchvision.transforms.v2", extra="vision")
    if augmented:
        return v2.Compose([v2.RandomResizedCrop(side, antialias=True), v2.RandomHorizontalFlip()])
    return v2.Compose([v2.Resize(round(side * _RESIZED), antialias=True), v2.CenterCrop(side)])

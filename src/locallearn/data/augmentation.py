"""Batched augmentation on whatever device holds the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

import torch
from torch import Tensor

from locallearn._torch.vision_libraries import import_torchvision
from locallearn._utils.optional_imports import optional


class Border(Enum):
    """The pixels outside of an image."""

    ZERO = "black"
    REFLECT = "the image mirrored at its edge, the edge itself not repeated"


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random crops of the padded image and random flips, drawn for each image.

    Attributes:
        pad: pixels added on each side before a crop of the original size is taken.
        border: what they hold.
        flip: whether half of the images are mirrored left to right.
    """

    pad: int = 0
    border: Border = Border.ZERO
    flip: bool = False


def augment(
    images: Tensor,
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    batch: int | None = None,
    part: Tensor | slice = slice(None),
) -> Tensor:
    """A random crop of each padded image, and a random flip.

    Args:
        images: uint8, (batch, height, width, channels).
        augmentation: what is drawn.
        generator: a CPU generator, so that all devices see the same draws.
        batch: images of the whole batch, if these are a part of it; their draws are those that they have in it.
        part: their places in it.

    Returns:
        Images of the same shape and type.
    """
    count, height, width, _ = images.shape
    pad, batch = augmentation.pad, batch or count
    shift = torch.randint(-pad, pad + 1, (2, batch, 1), generator=generator)[:, part].to(images.device)
    mirrored = torch.randint(0, 2, (batch, 1), generator=generator)[part].bool().to(images.device) & augmentation.flip
    rows = torch.arange(height, device=images.device) + shift[0]
    columns = torch.arange(width, device=images.device).expand(count, width)
    columns = torch.where(mirrored, width - 1 - columns, columns) + shift[1]
    inside_rows, rows = _into(rows, height, augmentation.border)
    inside_columns, columns = _into(columns, width, augmentation.border)
    image = torch.arange(count, device=images.device)[:, None, None]
    cropped = images[image, rows[:, :, None], columns[:, None, :]]
    return cropped * (inside_rows[:, :, None] & inside_columns[:, None, :])[..., None]


def rand_augment(images: Tensor, operations: int, magnitude: int, *, seeds: Sequence[int]) -> None:
    """RandAugment (Cubuk et al. 2020), torchvision's, of each image in place.

    Args:
        images: uint8, (batch, height, width, channels).
        operations: how many operations each image has, one after the other.
        magnitude: theirs, from 0 to 30.
        seeds: of the draws for each image.
    """
    transform = rand_augment_transform(operations, magnitude)
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            image.copy_(transform(image.permute(2, 0, 1)).permute(1, 2, 0))


@cache
def rand_augment_transform(operations: int, magnitude: int) -> Callable[[Tensor], Tensor]:
    """Torchvision's RandAugment of an image (channels, height, width); it draws from PyTorch's global generator."""
    import_torchvision()
    return optional("torchvision.transforms.v2", extra="vision").RandAugment(operations, magnitude)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float], *, channels_last: bool) -> Tensor:
    """From uint8 (batch, height, width, channels) to float32 (batch, channels, height, width), by channel.

    Args:
        images: pixel values, 0 to 255.
        mean: of each channel in the same unit.
        std: likewise.
        channels_last: whether the result has the channels-last memory format.
    """
    values = (images - images.new_tensor(mean, dtype=torch.float32)) / images.new_tensor(std, dtype=torch.float32)
    values = values.permute(0, 3, 1, 2)
    return values if channels_last else values.contiguous()


def _into(index: Tensor, size: int, border: Border) -> tuple[Tensor, Tensor]:
    """Which positions hold image, and a valid index for each."""
    if border is Border.REFLECT:
        index = (size - 1) - ((size - 1) - index.abs()).abs()
        return torch.ones_like(index, dtype=torch.bool), index
    return (index >= 0) & (index < size), index.clamp(0, size - 1)

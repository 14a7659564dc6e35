"""Labelled images, whole in memory, with what their papers do to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from locallearn._chain import Shape
from locallearn._errors import LocalLearnError


class Border(Enum):
    """What lies outside an image."""

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


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images as uint8, (n, height, width, channels), and labels as int64, (n,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A data set of labelled images.

    Attributes:
        train, test: the two splits.
        classes: names of the classes; a label is an index into them.
        mean, std: of each channel, in units of pixel values (0 to 255).
        augmentation: of the training split.
    """

    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation

    def __post_init__(self) -> None:
        for name, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise LocalLearnError(f"the {name} split has no images.")
            if split.labels.min() < 0 or split.labels.max() >= len(self.classes):
                raise LocalLearnError(
                    f"the {name} split has labels from {split.labels.min()} to {split.labels.max()},"
                    f" but there are {len(self.classes)} classes (0 to {len(self.classes) - 1})."
                )

        if self.augmentation.pad >= min(self.train.images.shape[1:3]):
            raise LocalLearnError(f"augmentation pads {self.augmentation.pad} pixels, more than the images have.")

    @property
    def image_shape(self) -> Shape:
        """Channels, height, width."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width

    def limited(self, train_images: int) -> ImageSet:
        """The same with the first `train_images` of the training split."""
        if not 0 < train_images <= len(self.train):
            raise LocalLearnError(f"train_images={train_images}, but there are {len(self.train)} training images.")
        train = Split(images=self.train.images[:train_images], labels=self.train.labels[:train_images])
        return replace(self, train=train)

"""`ImageSet`: labelled images in memory, with the constants and the augmentation of their papers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from locallearn._chain.layout import Shape
from locallearn._utils.errors import LocalLearnError, kind_of
from locallearn._utils.quantities import counted, there_are
from locallearn.data.augmentation import Augmentation
from locallearn.data.batches import Feed, Split, TensorBatches

_AT_A_TIME = 1000
"""Images that are resized at once."""


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
            self._refuse_other_arrays(name, split)
            if split.labels.ndim == 2:
                self._refuse_other_vectors(name, split.labels)
            elif split.labels.min() < 0 or split.labels.max() >= len(self.classes):
                raise LocalLearnError(
                    f"the {name} split has labels from {split.labels.min()} to {split.labels.max()},"
                    f" but {there_are(len(self.classes), 'class')} (0 to {len(self.classes) - 1})."
                )

        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            train, test = (split.images.shape[1:] for split in (self.train, self.test))
            raise LocalLearnError(f"training images are {train}, and test images {test}: give both one size.")
        channels = self.train.images.shape[3]
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise LocalLearnError(
                f"mean={self.mean} and std={self.std}: give a number for each of {counted(channels, 'channel')}, and"
                " std above 0."
            )
        if self.augmentation.pad >= min(self.train.images.shape[1:3]):
            raise LocalLearnError(f"augmentation pads {self.augmentation.pad} pixels, more than the images have.")

    def _refuse_other_arrays(self, name: str, split: Split) -> None:
        """Refuse what is no array of images beside one of as many labels."""
        images, labels = split.images, split.labels
        for array, what in ((images, "images"), (labels, "labels")):
            if not isinstance(array, np.ndarray):
                raise LocalLearnError(f"the {name} split's {what} are {kind_of(array)}: give a NumPy array.")
        if images.dtype != np.uint8 or images.ndim != 4:
            raise LocalLearnError(
                f"the {name} split has images of shape {images.shape} and type {images.dtype}: give pixels from 0"
                " to 255 as uint8, in the order (images, height, width, channels)."
            )
        if labels.ndim not in (1, 2) or len(images) != len(labels):
            raise LocalLearnError(
                f"the {name} split has {counted(len(images), 'image')} and labels of shape {labels.shape}: give a"
                " label for each."
            )

    def _refuse_other_vectors(self, split: str, labels: NDArray[Any]) -> None:
        """Refuse labels of images with several that are not a number from 0 to 1 for each class."""
        if labels.shape[1] != len(self.classes) or labels.min() < 0 or labels.max() > 1:
            raise LocalLearnError(
                f"the {split} split has labels of shape {labels.shape} from {labels.min()} to {labels.max()}: give each"
                f" image a number from 0 to 1 for each of {counted(len(self.classes), 'class')}."
            )

    @property
    def image_shape(self) -> Shape:
        """Channels, height, width."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width

    def limited(self, train_images: int) -> ImageSet:
        """The same with the first `train_images` of the training split."""
        if not 0 < train_images <= len(self.train):
            raise LocalLearnError(f"train_images={train_images}, but {there_are(len(self.train), 'training image')}.")
        train = Split(images=self.train.images[:train_images], labels=self.train.labels[:train_images])
        return replace(self, train=train)

    def resized(self, side: int) -> ImageSet:
        """The same with images of `side` x `side` pixels, by bilinear interpolation with antialiasing."""
        if self.image_shape[1:] == (side, side):
            return self
        return replace(self, train=_resized(self.train, side), test=_resized(self.test, side))

    def normalised_as(self, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageSet:
        """The same with other constants of normalisation."""
        return replace(self, mean=mean, std=std)

    def training(self, feed: Feed, *, seed: int, drop_single: bool) -> TensorBatches:
        """The training split as batches on the device, shuffled and augmented there."""
        return self._batches(self.train, feed, seed=seed, drop_single=drop_single)

    def testing(self, feed: Feed) -> TensorBatches:
        """The test split as batches on the device, in its order."""
        return self._batches(self.test, feed)

    def _batches(self, split: Split, feed: Feed, **order: Any) -> TensorBatches:
        constants: Any = {"mean": self.mean, "std": self.std, "augmentation": self.augmentation}
        return TensorBatches(images=split.images, labels=split.labels, feed=feed, **constants, **order)


def _resized(split: Split, side: int) -> Split:
    images = np.empty((len(split), side, side, split.images.shape[3]), np.uint8)
    for start in range(0, len(split), _AT_A_TIME):
        part = torch.from_numpy(split.images[start : start + _AT_A_TIME]).permute(0, 3, 1, 2).float()
        part = F.interpolate(part, (side, side), mode="bilinear", antialias=True)
        images[start : start + _AT_A_TIME] = part.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return Split(images=images, labels=split.labels)

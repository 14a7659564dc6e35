"""`FileSet`: labelled images in files, decoded and augmented as they are needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locallearn._chain.layout import Shape
from locallearn._utils.atomic_files import regular_file
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import there_are
from locallearn.data.batches import Feed
from locallearn.data.files.streamed_batches import LARGEST_IMAGE, Files, StreamedBatches

# Of ImageNet's training images, as all its models use them (0.485, 0.456, 0.406 and 0.229, 0.224, 0.225).
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, kw_only=True)
class ImageFiles(Files):
    """A file for each image.

    Attributes:
        folder: where they are.
        paths: inside of the folder, encoded as the system does: one array, which worker processes share.
    """

    folder: Path
    paths: NDArray[np.bytes_]

    @staticmethod
    def of(folder: Path, paths: Sequence[str], labels: Sequence[int]) -> ImageFiles:
        """From lists."""
        encoded = np.array([os.fsencode(path) for path in paths])
        return ImageFiles(folder=folder, paths=encoded, labels=np.array(labels, np.int64))

    def name(self, index: int) -> str:
        return str(self.folder / os.fsdecode(self.paths[index]))

    def read(self, index: int) -> bytes:
        return regular_file(Path(self.name(index)), most=LARGEST_IMAGE).read_bytes()


@dataclass(frozen=True, kw_only=True)
class FileSet:
    """A data set of labelled images in files.

    Training images are a random part, 8 to 100 % of the area and 3/4 to 4/3 wide for high, resized to `side` x `side`,
    and half of them mirrored; test images have their shorter side resized to 256/224 of `side`, and the centre cropped.
    So do the official codes for ImageNet (AugLocal's paper resizes test images to 224).

    Attributes:
        train, test: the two splits.
        classes: names of the classes; a label is an index into them.
        mean, std: of each channel, in units of pixel values; by default ImageNet's.
        side: height and width of the images as the network sees them.
    """

    train: Files
    test: Files
    classes: tuple[str, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    side: int = 224

    @property
    def image_shape(self) -> Shape:
        """Channels, height, width."""
        return 3, self.side, self.side

    def limited(self, train_images: int) -> FileSet:
        """The same with `train_images` of the training split, drawn once for all, for files are sorted by class."""
        if not 0 < train_images <= len(self.train):
            raise LocalLearnError(f"train_images={train_images}, but {there_are(len(self.train), 'training image')}.")
        rows = np.sort(np.random.default_rng(0).permutation(len(self.train))[:train_images])
        return replace(self, train=self.train.chosen(rows))

    def resized(self, side: int) -> FileSet:
        """The same with crops of `side` x `side` pixels."""
        return replace(self, side=side)

    def normalised_as(self, mean: tuple[float, ...], std: tuple[float, ...]) -> FileSet:
        """The same with other constants of normalisation."""
        return replace(self, mean=mean, std=std)

    def training(self, feed: Feed, *, seed: int, drop_single: bool) -> StreamedBatches:
        """The training split, shuffled and augmented."""
        return self._batches(self.train, feed, seed=seed, drop_single=drop_single)

    def testing(self, feed: Feed) -> StreamedBatches:
        """The test split, in its order."""
        return self._batches(self.test, feed)

    def _batches(self, files: Files, feed: Feed, **order: Any) -> StreamedBatches:
        size: Any = {"side": self.side, "mean": self.mean, "std": self.std}
        return StreamedBatches(files=files, labels=files.labels, feed=feed, **size, **order)

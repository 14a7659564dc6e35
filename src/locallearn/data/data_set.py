"""`DataSet`: what training needs of a data set, in memory or in files."""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol, Self, runtime_checkable

from locallearn._chain.layout import Shape
from locallearn.data.batches import Batches, Feed


@runtime_checkable
class DataSet(Protocol):
    """Labelled images in a training and a test split."""

    @property
    def train(self) -> Sized:
        """The training split."""
        ...

    @property
    def test(self) -> Sized:
        """The test split."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; a label is an index into them."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, in units of pixel values (0 to 255)."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel in the same unit."""
        ...

    @property
    def image_shape(self) -> Shape:
        """Channels, height, width, as the network sees them."""
        ...

    def limited(self, train_images: int) -> Self:
        """The same with fewer training images."""
        ...

    def resized(self, side: int) -> Self:
        """The same with images of `side` x `side` pixels."""
        ...

    def normalised_as(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """The same with other constants of normalisation."""
        ...

    def training(self, feed: Feed, *, seed: int, drop_single: bool) -> Batches:
        """Batches of the training split, shuffled and augmented; `drop_single` leaves out a last batch of one image."""
        ...

    def testing(self, feed: Feed) -> Batches:
        """Batches of the test split, in its order."""
        ...

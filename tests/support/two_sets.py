"""Two data sets of striped images that share two classes under other numbers, sizes and one other name."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from small_runs import stripes

from locallearn import LocalLearnWarning
from locallearn.data import Augmentation, ImageSet, Split


def small(root: Path) -> ImageSet:
    """12 x 12 pixels: automobiles have rows, birds columns, frogs diagonals."""
    return replace(stripes(root), classes=("automobile", "bird", "frog"), augmentation=Augmentation(pad=1))


def large(root: Path) -> ImageSet:
    """24 x 24 pixels of the same stripes twice as wide: 0 is Bird, 1 car, 2 monkey (which are diagonals)."""
    data = stripes(root)

    def changed(split: Split) -> Split:
        images = split.images.repeat(2, axis=1).repeat(2, axis=2)
        return Split(images=images, labels=np.array([1, 0, 2])[split.labels])

    return replace(
        data,
        train=changed(data.train),
        test=changed(data.test),
        classes=("Bird", "car", "monkey"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )


def doubtful(root: Path) -> ImageSet:
    """As `large`, with a warning."""
    warnings.warn("these are not the published images", LocalLearnWarning, stacklevel=2)
    return large(root)


def grey(root: Path) -> ImageSet:
    """One channel."""
    data = small(root)
    test = Split(images=data.test.images[..., :1], labels=data.test.labels)
    return replace(data, train=test, test=test, mean=(0.0,), std=(1.0,))


def strangers(root: Path) -> ImageSet:
    """Nothing of the kind."""
    return replace(small(root), classes=("automobile", "pear", "plum"))

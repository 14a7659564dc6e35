"""Validation images: a part of the training split on which epochs are chosen instead of on the test split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.data.data_set import DataSet
from locallearn.data.files.file_set import FileSet
from locallearn.data.image_set import ImageSet


def hold_out(images: DataSet, amount: float, *, seed: int) -> tuple[DataSet, DataSet]:
    """Hold out a part of the training split that has every class in the proportion of the whole.

    Of images with several labels the part is drawn from all of them alike.

    Args:
        images: the data set; an `ImageSet` or a `FileSet`.
        amount: a share, above 0 and below 1, or a whole number of images.
        seed: of the draw.

    Returns:
        The data set without these training images, and one whose test split they are: neither shuffled nor augmented.

    Raises:
        LocalLearnError: the data set is of another class, or a class would have no image in one of the two parts.
    """
    if not isinstance(images, ImageSet | FileSet):
        raise LocalLearnError(
            f"validation={amount} cannot cut the training images of a {type(images).__name__}: give an ImageSet or a"
            " FileSet of locallearn.data, or leave validation out."
        )
    train = images.train
    held, rest = _drawn(train.labels, images.classes, amount, seed)
    return replace(images, train=train.chosen(rest)), replace(images, test=train.chosen(held))


def _drawn(
    labels: NDArray[Any], classes: tuple[str, ...], amount: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the images that are held out, and of the others, both ascending."""
    count = amount if isinstance(amount, int) else round(amount * len(labels))
    if labels.ndim == 2:
        return _of_several_labels(count, len(labels), seed)
    sizes = np.bincount(labels, minlength=len(classes))
    quotas = count * sizes / len(labels)
    counts = np.floor(quotas).astype(np.int64)
    largest = np.argsort(counts - quotas, kind="stable")  # the method of largest remainders
    counts[largest[: count - counts.sum()]] += 1
    for name, size, chosen in zip(classes, sizes, counts, strict=True):
        if size and not 0 < chosen < size:
            raise LocalLearnError(
                f"validation={amount} holds out {count:,} of {counted(len(labels), 'training image')}, {chosen} of the"
                f" {size} of class {name!r}: give another number, so that each class has images in both parts."
            )
    draw = np.random.default_rng(seed)
    held = np.concatenate(
        [draw.permutation(np.flatnonzero(labels == label))[:chosen] for label, chosen in enumerate(counts)]
    )
    is_held = np.zeros(len(labels), bool)
    is_held[held] = True
    return np.flatnonzero(is_held), np.flatnonzero(~is_held)


def _of_several_labels(count: int, images: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not 0 < count < images:
        raise LocalLearnError(
            f"validation holds out {count:,} of {counted(images, 'training image')}: give another number."
        )
    order = np.random.default_rng(seed).permutation(images)
    return np.sort(order[:count]), np.sort(order[count:])

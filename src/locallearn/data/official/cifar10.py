"""CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels in ten classes (Krizhevsky, 2009)."""

from __future__ import annotations

from pathlib import Path

from locallearn.data.augmentation import Augmentation, Border
from locallearn.data.batches import Split
from locallearn.data.image_set import ImageSet
from locallearn.data.official.cifar10_mosaics import MOSAICS
from locallearn.data.official.cifar_pickles import joined, read_batch
from locallearn.data.published_set import PublishedSet

_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def cifar10(root: Path) -> ImageSet:
    """CIFAR-10 from `root/cifar10/cifar-10-batches-py`, where `get("cifar10", root)` puts it.

    Images are in the order of the official batches. Mean, standard deviation and augmentation are those of the official
    code of AugLocal (train.py).

    Raises:
        LocalLearnError: it is not there or damaged.
    """
    return CIFAR10.load(root)


def _read(folder: Path) -> tuple[Split, Split]:
    *train, test = (read_batch(folder / name, "labels") for name in _FILES)
    return joined(train), test


CIFAR10 = PublishedSet(
    name="cifar10",
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    files=_FILES,
    read=_read,
    urls={"https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
    package=MOSAICS,
    size=360_000_000,
    train=50_000,
    test=10_000,
    image=(32, 32, 3),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    mean=(125.3, 123.0, 113.9),
    std=(63.0, 62.1, 66.7),
    augmentation=Augmentation(pad=4, border=Border.REFLECT, flip=True),
    sha256={
        "train_images": "8b90be8a6202e47578c9cf5f7b9ab5caf2a34e97e1cf208768f3757a6c7ea103",
        "train_labels": "f9f95394ffd3b42505e7ffbc3c4f0bd58cc3ab17384eec1c2680ef51b47aeb1f",
        "test_images": "b5a2a05c6262aac4095dc3d1b7dc210ff29c664228f3b930e0e43635d2793850",
        "test_labels": "0e3e2063171daa3717c72d0dcaf508003b275c5921bfa5949504b6da9db4564b",
    },
)

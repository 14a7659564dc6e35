"""STL-10: 5,000 training and 8,000 test images of 96 x 96 pixels in ten classes (Coates et al., 2011)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from locallearn.data.augmentation import Augmentation, Border
from locallearn.data.batches import Split
from locallearn.data.image_set import ImageSet
from locallearn.data.published_set import PublishedSet, parse_file


def stl10(root: Path) -> ImageSet:
    """STL-10's labelled images from `root/stl10/stl10_binary`, where `get("stl10", root)` puts them.

    Mean, standard deviation and augmentation are those of the official code of AugLocal (train.py), whose classifier
    has 100 outputs by a typing error; here there are ten classes.

    Raises:
        LocalLearnError: it is not there or damaged.
    """
    return STL10.load(root)


def _read(folder: Path) -> tuple[Split, Split]:
    return _split(folder, "train"), _split(folder, "test")


def _split(folder: Path, name: str) -> Split:
    images = parse_file(folder / f"{name}_X.bin", _images)
    return Split(images=images, labels=parse_file(folder / f"{name}_y.bin", _labels))


def _images(path: Path) -> np.ndarray:
    """Planes of red, green and blue, column by column."""
    return np.ascontiguousarray(np.fromfile(path, np.uint8).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1))


def _labels(path: Path) -> np.ndarray:
    """From 1 on disk."""
    return np.fromfile(path, np.uint8).astype(np.int64) - 1


_MD5 = {
    "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
    "train_y.bin": "5a34089d4802c674881badbb80307741",
    "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
    "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
}
STL10 = PublishedSet(
    name="stl10",
    title="STL-10",
    folder="stl10_binary",
    files=tuple(_MD5),
    read=_read,
    urls={"http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb"},
    size=3_000_000_000,  # of the archive, most of which are the unlabelled images, and of the labelled ones
    train=5_000,
    test=8_000,
    image=(96, 96, 3),
    classes=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    mean=(127.5,) * 3,
    std=(127.5,) * 3,
    augmentation=Augmentation(pad=4, border=Border.ZERO, flip=True),
    md5=_MD5,
)

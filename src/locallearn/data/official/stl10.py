"""STL-10: 5,000 training and 8,000 test images of 96 x 96 pixels in ten classes (Coates et al., 2011)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from locallearn.data.archives import all_parts
from locallearn.data.augmentation import Augmentation, Border
from locallearn.data.image_set import ImageSet, Split
from locallearn.data.store import StoredSet, load

STL10 = StoredSet(
    name="stl10",
    title="STL-10",
    size=2_640_397_119,  # of the archive, most of which are the unlabelled images
    image=(96, 96, 3),
    classes=10,
    train=5_000,
    test=8_000,
    md5={
        "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
        "train_y.bin": "5a34089d4802c674881badbb80307741",
        "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
        "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
    },
)


def stl10(root: Path) -> ImageSet:
    """STL-10's labelled images from `root/stl10`, where `get("stl10", root)` puts them.

    Mean, standard deviation and augmentation are those of the official code of AugLocal (train.py), whose classifier
    has 100 outputs by a typing error; here there are ten classes.

    Raises:
        LocalLearnError: it is not there or damaged.
    """
    train, test = load(STL10, root)
    return ImageSet(
        train=train,
        test=test,
        classes=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
        augmentation=Augmentation(pad=4, border=Border.ZERO, flip=True),
    )


def read_stl10(source: Path, *, called: str, md5: Mapping[str, str]) -> tuple[Split, Split]:
    """Read the official binary files: images as planes of red, green and blue, column by column; labels from 1.

    Args:
        source: stl10_binary.tar.gz or the folder extracted from it; unlabelled images are not read.
        called: what errors call it.
        md5: that files must have; `STL10.md5` for the published ones, none for others of the same layout.

    Raises:
        LocalLearnError: it cannot be read, lacks a file, or one is garbled.
    """
    parsers = {f"{split}_{part}.bin": parse for split in ("train", "test") for part, parse in _PARSERS.items()}
    parts = all_parts(source, parsers, title=STL10.title, folders=("", "stl10_binary"), called=called, md5=md5)
    train, test = (
        Split(images=parts[f"{split}_X.bin"], labels=parts[f"{split}_y.bin"].astype(np.int64) - 1)
        for split in ("train", "test")
    )
    return train, test


def _images(content: bytes) -> np.ndarray:
    return np.ascontiguousarray(np.frombuffer(content, np.uint8).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1))


def _labels(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


_PARSERS = {"X": _images, "y": _labels}

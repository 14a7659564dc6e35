"""SVHN: 73,257 training and 26,032 test images of house numbers, 32 x 32 pixels (Netzer et al., 2011)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from locallearn._utils.optional_imports import optional
from locallearn.data.archives import all_parts
from locallearn.data.augmentation import Augmentation, Border
from locallearn.data.image_set import ImageSet, Split
from locallearn.data.store import StoredSet, load

SVHN = StoredSet(
    name="svhn",
    title="SVHN",
    size=305_811_100,
    image=(32, 32, 3),
    classes=10,
    train=73_257,
    test=26_032,
    md5={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
)


def svhn(root: Path) -> ImageSet:
    """SVHN's cropped digits without its `extra` images, from `root/svhn`, where `get("svhn", root)` puts them.

    Mean, standard deviation and augmentation are those of the official code of AugLocal (train.py).

    Raises:
        LocalLearnError: it is not there or damaged.
    """
    train, test = load(SVHN, root)
    return ImageSet(
        train=train,
        test=test,
        classes=tuple("0123456789"),
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
        augmentation=Augmentation(pad=2, border=Border.ZERO, flip=False),
    )


def read_svhn(source: Path, *, called: str, md5: Mapping[str, str]) -> tuple[Split, Split]:
    """Read the official MATLAB files, in which zero has the label 10.

    Args:
        source: a folder or tar archive with train_32x32.mat and test_32x32.mat, or one of the two beside the other.
        called: what errors call it.
        md5: that files must have; `SVHN.md5` for the published ones, none for others of the same layout.

    Raises:
        LocalLearnError: it cannot be read, lacks a file, or one is garbled.
    """
    parsers = {"train_32x32.mat": _split, "test_32x32.mat": _split}
    parts = all_parts(source, parsers, title=SVHN.title, folders=("", "svhn"), called=called, md5=md5)
    return parts["train_32x32.mat"], parts["test_32x32.mat"]


def _split(content: bytes) -> Split:
    found = optional("scipy.io").loadmat(io.BytesIO(content), variable_names=["X", "y"])
    images = np.ascontiguousarray(found["X"].transpose(3, 0, 1, 2))
    labels = found["y"].reshape(-1).astype(np.int64)
    if images.dtype != np.uint8:
        raise ValueError(f"its images are {images.dtype}, not uint8")
    return Split(images=images, labels=np.where(labels == 10, 0, labels))

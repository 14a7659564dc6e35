"""SVHN: 73,257 training and 26,032 test images of house numbers, 32 x 32 pixels (Netzer et al., 2011)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from locallearn._utils.optional_imports import optional
from locallearn.data.augmentation import Augmentation, Border
from locallearn.data.batches import Split
from locallearn.data.image_set import ImageSet
from locallearn.data.published_set import PublishedSet, parse_file

_HOST = "http://ufldl.stanford.edu/housenumbers"
_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def svhn(root: Path) -> ImageSet:
    """SVHN's cropped digits without its `extra` images, from `root/svhn`, where `get("svhn", root)` puts them.

    Mean, standard deviation and augmentation are those of the official code of AugLocal (train.py).

    Raises:
        LocalLearnError: it is not there or damaged.
    """
    return SVHN.load(root)


def _read(folder: Path) -> tuple[Split, Split]:
    return parse_file(folder / "train_32x32.mat", _split), parse_file(folder / "test_32x32.mat", _split)


def _split(path: Path) -> Split:
    """A MATLAB file, in which zero has the label 10."""
    io = optional("scipy.io")
    for name, shape, kind in io.whosmat(path):  # before anything is unpacked
        if name == "X" and (kind != "uint8" or shape[:3] != (32, 32, 3) or shape[3] > SVHN.train):
            raise ValueError(f"its images are {kind} of shape {shape}")
    content = io.loadmat(path, variable_names=["X", "y"])
    images = np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2))
    labels = content["y"].reshape(-1).astype(np.int64)
    return Split(images=images, labels=np.where(labels == 10, 0, labels))


SVHN = PublishedSet(
    name="svhn",
    title="SVHN",
    folder="",
    files=tuple(_MD5),
    read=_read,
    urls={f"{_HOST}/{name}": digest for name, digest in _MD5.items()},
    size=500_000_000,
    train=73_257,
    test=26_032,
    image=(32, 32, 3),
    classes=tuple("0123456789"),
    mean=(127.5,) * 3,
    std=(127.5,) * 3,
    augmentation=Augmentation(pad=2, border=Border.ZERO, flip=False),
    md5=_MD5,
)

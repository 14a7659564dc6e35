"""CIFAR-10, CIFAR-100, STL-10 and SVHN with a few images, in the layouts of their authors."""

from __future__ import annotations

import hashlib
import json
import pickle
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from locallearn.data import Split, download
from locallearn.data.official.cifar10 import CIFAR10
from locallearn.data.official.cifar100 import CIFAR100
from locallearn.data.official.stl10 import STL10
from locallearn.data.official.svhn import SVHN
from locallearn.data.published_set import PublishedSet, fingerprint

TRAIN, TEST = 12, 8


def part(split: Split, count: int) -> Split:
    """The first images of a split."""
    return Split(images=split.images[:count], labels=split.labels[:count])


def same(one: Split, other: Split) -> bool:
    """Equal images and labels, of equal types."""
    return all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in ((one.images, other.images), (one.labels, other.labels))
    )


def packed(folder: Path, archive: Path) -> Path:
    """A folder as a compressed tar archive."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A data set with few images; `write` fills a folder with its official files."""

    official: PublishedSet
    write: Callable[[Path, Split, Split], None]

    def splits(self) -> tuple[Split, Split]:
        """The images that stand for the published ones."""
        draw = np.random.default_rng(0)

        def split(count: int) -> Split:
            images = draw.integers(0, 256, (count, *self.official.image), np.uint8)
            return Split(images=images, labels=np.arange(count) % len(self.official.classes))

        return split(TRAIN), split(TEST)

    def files(self, folder: Path) -> Path:
        """A folder, named as its authors name it, with the official files."""
        folder = folder / (self.official.folder or self.official.name)
        folder.mkdir(parents=True)
        self.write(folder, *self.splits())
        return folder

    def known(self, folder: Path) -> PublishedSet:
        """The data set, if these files were the published ones."""
        train, test = self.splits()
        arrays = {"train_images": train.images, "train_labels": train.labels}
        arrays |= {"test_images": test.images, "test_labels": test.labels}
        return replace(
            self.official,
            train=TRAIN,
            test=TEST,
            size=1_500_000,
            sha256={name: fingerprint(arrays[name]) for name in self.official.sha256},
            md5={name: md5(folder / name) for name in self.official.md5},
        )


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def publish(monkeypatch: pytest.MonkeyPatch, known: PublishedSet) -> None:
    """Let locallearn take a data set for the published one."""
    monkeypatch.setattr(f"locallearn.data.official.{known.name}.{known.name.upper()}", known)
    monkeypatch.setitem(download._SETS, known.name, known)


def planes(split: Split) -> np.ndarray:
    return np.ascontiguousarray(split.images.transpose(0, 3, 1, 2)).reshape(len(split), -1)


def batches(train: Split, test: Split) -> dict[str, Split]:
    """The splits as CIFAR-10's six batches."""
    rows = np.array_split(np.arange(len(train)), 5)
    parts = [Split(images=train.images[chosen], labels=train.labels[chosen]) for chosen in rows]
    return dict(zip(CIFAR10.files, [*parts, test], strict=True))


def mosaics(folder: Path, train: Split, test: Split) -> Path:
    """The npm package's folder: an image is a row of 1024 pixels."""
    folder = folder / "package"
    folder.mkdir()
    for name, split in batches(train, test).items():
        Image.fromarray(split.images.reshape(len(split), 1024, 3)).save(folder / f"{name}.png")
    (folder / "train_lables.json").write_text(json.dumps(train.labels.tolist()))
    (folder / "test_lables.json").write_text(json.dumps(test.labels.tolist()))
    return folder


def _cifar10(folder: Path, train: Split, test: Split) -> None:
    for name, split in batches(train, test).items():
        content = {b"batch_label": b"batch", b"labels": split.labels.tolist(), b"data": planes(split)}
        (folder / name).write_bytes(pickle.dumps(content, 2))


def _cifar100(folder: Path, *splits: Split) -> None:
    for name, split in zip(("train", "test"), splits, strict=True):
        labels = split.labels.tolist()
        coarse = [label % 20 for label in labels]
        content = {b"data": planes(split), b"fine_labels": labels, b"coarse_labels": coarse}
        (folder / name).write_bytes(pickle.dumps(content, 2))


def _stl10(folder: Path, *splits: Split) -> None:
    for name, split in zip(("train", "test"), splits, strict=True):
        by_column = b"".join(image[:, :, plane].T.tobytes() for image in split.images for plane in range(3))
        (folder / f"{name}_X.bin").write_bytes(by_column)
        (folder / f"{name}_y.bin").write_bytes(bytes(label + 1 for label in split.labels.tolist()))
    (folder / "unlabeled_X.bin").write_bytes(b"never read")


def _svhn(folder: Path, *splits: Split) -> None:
    for name, split in zip(("train", "test"), splits, strict=True):
        labels = np.where(split.labels == 0, 10, split.labels).astype(np.uint8)[:, None]
        savemat(folder / f"{name}_32x32.mat", {"X": split.images.transpose(1, 2, 3, 0), "y": labels})


SETS: dict[str, Tiny] = {
    "cifar10": Tiny(official=CIFAR10, write=_cifar10),
    "cifar100": Tiny(official=CIFAR100, write=_cifar100),
    "stl10": Tiny(official=STL10, write=_stl10),
    "svhn": Tiny(official=SVHN, write=_svhn),
}


def members(archive: Path, infos: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """An archive of hand-made members; those without bytes have headers alone."""
    with tarfile.open(archive, "w") as tar:
        for info, content in infos:
            tar.fileobj.write(info.tobuf() + content + bytes(-len(content) % 512))  # pyright: ignore[reportOptionalMemberAccess]
            tar.offset += 512 + len(content) + -len(content) % 512
    return archive

"""Images in tar shards, in webdataset's layout: `KEY.jpg` and `KEY.cls` one after the other.

They are read with Python's tarfile and not with the webdataset package. That one reads shards from end to end, as suits
storage without random access; its shuffling buffer and its splitting over workers make the order depend on the number
of workers, and to resume in mid-epoch all that came before must be read again. A table of where each image lies, made
once, costs less code and gives what images in folders have: one order, known beforehand, from any start.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from locallearn._errors import LocalLearnError
from locallearn.data._archives import brief
from locallearn.data._file_set import FileSet

_IMAGES = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, kw_only=True)
class ShardFiles:
    """Images that lie in tar archives.

    Attributes:
        shards: the archives.
        keys: of the images, encoded.
        places: archive, first byte, bytes of each image, (n, 3).
        labels: of each.
    """

    shards: tuple[Path, ...]
    keys: NDArray[np.bytes_]
    places: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"{self.shards[self.places[index, 0]]}: {os.fsdecode(self.keys[index])}"

    def read(self, index: int) -> bytes:
        shard, start, size = self.places[index].tolist()
        with self.shards[shard].open("rb") as file:
            file.seek(start)
            return file.read(size)

    def chosen(self, rows: NDArray[np.int64]) -> ShardFiles:
        return replace(self, keys=self.keys[rows], places=self.places[rows], labels=self.labels[rows])


def shards_in(folder: Path) -> list[Path]:
    """All tar archives in a folder and the folders in it."""
    return sorted((*folder.glob("*.tar"), *folder.glob("*/*.tar")))


def shards_of(folder: Path, test_names: Sequence[str]) -> FileSet:
    """A data set of tar shards.

    A shard belongs to the split whose name is that of its folder or a part of its own: train/0000.tar,
    imagenet-train-000000.tar, imagenet1k-validation-00.tar. An image's class is the number in its .cls file. A file
    classes.txt in the folder names the classes, one in a line; without it they are called by their numbers.

    Args:
        folder: the data set.
        test_names: names of the test split; the first that has shards is taken.

    Raises:
        LocalLearnError: shards are missing, damaged, or have another layout.
    """
    train = _indexed(_named(folder, "train"))
    test_shards = next(filter(None, (_named(folder, name) for name in test_names)), [])
    if train is None or not test_shards:
        missing = "train" if train is None else "val or test"
        raise LocalLearnError(
            f"{folder} has no {missing} shards: put it into their names, as in {missing[:5].strip()}-0000.tar."
        )
    test = _indexed(test_shards)
    assert test is not None
    names = folder / "classes.txt"
    if names.exists():
        classes = tuple(names.read_text().split("\n"))
        classes = tuple(name.strip() for name in classes if name.strip())
    else:
        classes = tuple(str(label) for label in range(int(train.labels.max()) + 1))
    for files in (train, test):
        if files.labels.min() < 0 or files.labels.max() >= len(classes):
            row = int(np.argmax((files.labels < 0) | (files.labels >= len(classes))))
            raise LocalLearnError(
                f"{files.name(row)} has class {files.labels[row]}, but there are {len(classes)} (0 to"
                f" {len(classes) - 1})."
            )
    return FileSet(train=train, test=test, classes=classes)


def _named(folder: Path, split: str) -> list[Path]:
    """Shards with the word in their own or their folder's name."""

    def words(path: Path) -> list[str]:
        parent = path.parent.name if path.parent != folder else ""
        return "".join(c if c.isalpha() else " " for c in f"{parent} {path.stem}".lower()).split()

    return [path for path in shards_in(folder) if split in words(path)]


def _indexed(shards: Sequence[Path]) -> ShardFiles | None:
    """Where each image lies."""
    keys: list[bytes] = []
    places: list[tuple[int, int, int]] = []
    labels: list[int] = []
    for number, shard in enumerate(shards):
        for key, start, size, label in _samples(shard):
            keys.append(os.fsencode(key))
            places.append((number, start, size))
            labels.append(label)
    if not labels:
        return None
    return ShardFiles(
        shards=tuple(shards), keys=np.array(keys), places=np.array(places), labels=np.array(labels, np.int64)
    )


def _samples(shard: Path) -> Iterator[tuple[str, int, int, int]]:
    """Key, first byte, bytes and label of each image of a shard."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                stem, _, suffix = path.name.partition(".")
                key = str(path.parent / stem)
                if suffix.lower() in _IMAGES:
                    images[key] = (member.offset_data, member.size)
                elif suffix == "cls" and (file := archive.extractfile(member)):
                    labels[key] = int(file.read())
                archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # or it keeps all headers
    except (OSError, tarfile.TarError) as error:
        raise LocalLearnError(f"{shard} is cut off or no plain tar archive ({brief(error)}).") from None
    except ValueError as error:
        raise LocalLearnError(f"{shard} has a .cls file that is no number ({error}).") from None
    if images.keys() != labels.keys() or not images:
        key = next(iter(images.keys() ^ labels.keys()), "any image")
        what = "no .cls file" if key in images else "no image (.jpg, .png, .webp)"
        raise LocalLearnError(f"{shard} has {what} for {key}.")
    for key, (start, size) in images.items():
        yield key, start, size, labels[key]

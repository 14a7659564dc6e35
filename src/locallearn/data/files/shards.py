"""Images in tar shards, in webdataset's layout: `KEY.jpg` and `KEY.cls` one after the other.

Python's tarfile reads them, not the webdataset package. That package reads shards from end to end, which suits storage
without random access. Its shuffling buffer and its splitting over workers make the order depend on the number of
workers, and to resume in mid-epoch it reads all earlier samples again. A table of where each image lies, made once,
takes less code, and the order is known beforehand, from any start, as for images in folders. The table is stored beside
the shards.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from locallearn._utils.atomic_files import regular_file, write_whole
from locallearn._utils.errors import LocalLearnError, describe
from locallearn.data.files.file_set import FileSet
from locallearn.data.files.streamed_batches import LARGEST_IMAGE, Files

_IMAGES = ("jpg", "jpeg", "png", "webp")
_LARGEST = {**dict.fromkeys(_IMAGES, LARGEST_IMAGE), "cls": 100}  # bytes
_LARGEST_SHARD, _LARGEST_TABLE = 2**50, 2**33


@dataclass(frozen=True, kw_only=True)
class ShardFiles(Files):
    """Images that lie in tar archives.

    Attributes:
        shards: the archives.
        keys: of the images, encoded.
        places: archive, first byte, bytes of each image, (n, 3).
    """

    shards: tuple[Path, ...]
    keys: NDArray[np.bytes_]
    places: NDArray[np.int64]

    def name(self, index: int) -> str:
        return f"{self.shards[self.places[index, 0]]}: {os.fsdecode(self.keys[index])}"

    def read(self, index: int) -> bytes:
        shard, start, size = self.places[index].tolist()
        with self.shards[shard].open("rb") as file:
            file.seek(start)
            return file.read(size)


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
    name = next((name for name in test_names if _named(folder, name)), None)
    if name is None or not _named(folder, "train"):
        wanted = "train" if name else "val"
        raise LocalLearnError(f"{folder} has no {wanted} shards: say so in their names, as in {wanted}-0000.tar.")
    train, test = (_index_of(_named(folder, split), folder / f".{split}.index.npz") for split in ("train", name))
    names = folder / "classes.txt"
    if names.exists():
        classes = tuple(
            line.strip() for line in regular_file(names, most=2**20).read_text().splitlines() if line.strip()
        )
    else:
        classes = tuple(str(label) for label in range(int(train.labels.max()) + 1))
    for files in (train, test):
        if files.labels.min() < 0 or files.labels.max() >= len(classes):
            row = int(np.argmax((files.labels < 0) | (files.labels >= len(classes))))
            raise LocalLearnError(
                f"{files.name(row)} has class {files.labels[row]}, but the classes are 0 to {len(classes) - 1}."
            )
    return FileSet(train=train, test=test, classes=classes)


def _named(folder: Path, split: str) -> list[Path]:
    """Shards with the word in their own or their folder's name."""

    def words(path: Path) -> list[str]:
        parent = path.parent.name if path.parent != folder else ""
        return "".join(c if c.isalpha() else " " for c in f"{parent} {path.stem}".lower()).split()

    return [path for path in shards_in(folder) if split in words(path)]


def _index_of(shards: Sequence[Path], table: Path) -> ShardFiles:
    """All images of the shards.

    Reading through ImageNet's shards takes minutes, so the result is stored in a table. It is used again as long as the
    shards have the same names, sizes and times.

    Args:
        shards: tar archives, at least one.
        table: the file of the table; where it cannot be written, the shards are read again each time.

    Raises:
        LocalLearnError: a shard is damaged or has another layout.
    """
    state = str([(shard.name, shard.stat().st_size, shard.stat().st_mtime_ns) for shard in shards])
    key = np.array(hashlib.sha256(state.encode()).hexdigest())
    try:
        with np.load(io.BytesIO(regular_file(table, most=_LARGEST_TABLE).read_bytes()), allow_pickle=False) as stored:
            if stored["key"] == key:
                return ShardFiles(shards=tuple(shards), **{name: stored[name] for name in ("keys", "places", "labels")})
    except Exception:  # it is missing or damaged, and NumPy fails in many ways: it is made anew
        pass
    samples = [(number, *sample) for number, shard in enumerate(shards) for sample in _samples(shard)]
    files = ShardFiles(
        shards=tuple(shards),
        keys=np.array([os.fsencode(sample[1]) for sample in samples]),
        places=np.array([(number, start, size) for number, _, start, size, _ in samples], np.int64),
        labels=np.array([sample[4] for sample in samples], np.int64),
    )
    buffer = io.BytesIO()
    np.savez(buffer, key=key, keys=files.keys, places=files.places, labels=files.labels)
    with suppress(OSError, LocalLearnError):
        write_whole(table, buffer.getvalue())
    return files


def _samples(shard: Path) -> Iterator[tuple[str, int, int, int]]:
    """Key, first byte, bytes and label of each image of a shard."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        regular_file(shard, most=_LARGEST_SHARD)
    except LocalLearnError as error:
        raise LocalLearnError(f"{error}, in {shard.parent}.") from error
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                stem, _, suffix = path.name.partition(".")
                key, suffix = str(path.parent / stem), suffix.lower()
                plain = member.isfile() and not member.issparse()
                if suffix in _LARGEST and not (plain and 0 <= member.size <= _LARGEST[suffix]):
                    raise tarfile.TarError(f"{member.name} is no plain file of at most {_LARGEST[suffix]:,} bytes")
                if suffix in _IMAGES:
                    images[key] = (member.offset_data, member.size)
                elif suffix == "cls" and (file := archive.extractfile(member)):
                    labels[key] = int(file.read())
                archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # or it would hold all headers
    except (OSError, tarfile.TarError) as error:
        raise LocalLearnError(f"{shard} is cut off or no plain tar archive ({describe(error)}).") from error
    except ValueError as error:
        raise LocalLearnError(f"{shard} has a .cls file that is no number ({error}).") from error
    if images.keys() != labels.keys() or not images:
        key = next(iter(images.keys() ^ labels.keys()), "any image")
        what = "no .cls file" if key in images else "no image (.jpg, .png, .webp)"
        raise LocalLearnError(f"{shard} has {what} for {key}.")
    for key, (start, size) in images.items():
        yield key, start, size, labels[key]

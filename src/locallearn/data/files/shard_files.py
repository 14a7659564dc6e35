"""`ShardFiles`: where each image lies in tar shards, from a table that is made once and stored beside them."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from locallearn._utils.atomic_files import regular_file, write_whole
from locallearn._utils.errors import LocalLearnError, describe
from locallearn.data.files.streamed_batches import LARGEST_IMAGE

_IMAGES = ("jpg", "jpeg", "png", "webp")
_LARGEST = {**dict.fromkeys(_IMAGES, LARGEST_IMAGE), "cls": 100}  # bytes
_LARGEST_SHARD, _LARGEST_TABLE = 2**50, 2**33


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


def index_of(shards: Sequence[Path], table: Path) -> ShardFiles:
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

"""Data sets on disk: a folder for each, the same four files in all, every byte checked when read."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from locallearn._errors import LocalLearnError
from locallearn._files import flush_folder, is_disk_full
from locallearn.data._image_set import Split

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_FILES = frozenset(f"{name}.npy" for name in _ARRAYS)


@dataclass(frozen=True, kw_only=True)
class StoredSet:
    """What is known of a data set before it is there.

    Attributes:
        name: of its folder, and on the command line.
        title: as its authors write it.
        size: bytes that it takes on disk; getting it never needs more at a time.
        sha256: `fingerprint` of each array: `train_images`, `train_labels`, `test_images`, `test_labels`.
    """

    name: str
    title: str
    size: int
    sha256: Mapping[str, str]


def fingerprint(array: np.ndarray) -> str:
    """SHA-256 (hexadecimal) of the element type, the shape and the elements in C order."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def verify(known: StoredSet, train: Split, test: Split, *, source: str) -> None:
    """Compare arrays with their known fingerprints.

    Raises:
        LocalLearnError: some differ; the sentence names `source` and them.
    """
    arrays = _named(train, test)
    if wrong := [name for name in _ARRAYS if fingerprint(arrays[name]) != known.sha256[name]]:
        raise LocalLearnError(
            f"{source} does not hold {known.title} as published: SHA-256 differs for {', '.join(wrong)}."
        )


def save(known: StoredSet, root: Path, train: Split, test: Split) -> Path:
    """Write a data set to `root/NAME`, whole or not at all, and replace what was there.

    A kill at any moment leaves the old folder, the new one or none, never a part of one.

    Returns:
        The folder.

    Raises:
        LocalLearnError: as `workspace`.
    """
    target = root / known.name
    with workspace(known, root) as folder:
        fresh = folder / "new"
        fresh.mkdir()
        for name, array in _named(train, test).items():
            _write(fresh / f"{name}.npy", array)
        flush_folder(fresh)
        if os.path.lexists(target):
            target.rename(folder / "old")
        fresh.rename(target)
        flush_folder(root)
    return target


def load(known: StoredSet, root: Path) -> tuple[Split, Split]:
    """Read the training and test splits from `root/NAME`.

    Raises:
        LocalLearnError: they are not there, a file cannot be read, or its content is not the known one.
    """
    folder = root / known.name
    if not any((folder / file).exists() for file in _FILES):
        raise LocalLearnError(
            f"{known.title} is not at {folder}: run locallearn data get {known.name},"
            " or give the folder that holds your data sets with --data-dir."
        )
    arrays = {name: _read(known, folder / f"{name}.npy") for name in _ARRAYS}
    return (
        Split(images=arrays["train_images"], labels=arrays["train_labels"]),
        Split(images=arrays["test_images"], labels=arrays["test_labels"]),
    )


@contextmanager
def workspace(known: StoredSet, root: Path) -> Iterator[Path]:
    """An empty folder inside `root` to get a data set in, removed at the end, as are those of killed attempts.

    Raises:
        LocalLearnError: `root/NAME` holds files that are not ours, the disk is full, or `root` cannot be written.
    """
    try:
        _refuse_strangers(known, root / known.name)
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(f".{known.name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{known.name}.", dir=root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        if is_disk_full(error):
            raise LocalLearnError(
                f"the disk of {root} is full: {known.title} needs {known.size:,} bytes there;"
                " free some space or choose another folder with --data-dir."
            ) from None
        raise LocalLearnError(
            f"{known.title} cannot be written to {root} ({error.strerror or error}):"
            " choose another folder with --data-dir."
        ) from None


def _named(train: Split, test: Split) -> dict[str, np.ndarray]:
    return dict(zip(_ARRAYS, (train.images, train.labels, test.images, test.labels), strict=True))


def _refuse_strangers(known: StoredSet, target: Path) -> None:
    """`target` is going to be replaced, so it may hold nothing of the user's own."""
    strangers = sorted(set(os.listdir(target)) - _FILES) if target.is_dir() else [target.name] * target.exists()
    if strangers:
        raise LocalLearnError(
            f"{target} is where {known.title} belongs, but it holds something else ({strangers[0]}):"
            " move that away or choose another folder with --data-dir."
        )


def _write(path: Path, array: np.ndarray) -> None:
    # A file also open for reading makes NumPy write through Python, whose errors tell a full disk; `tofile` hides it.
    with path.open("w+b") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _read(known: StoredSet, path: Path) -> np.ndarray:
    remedy = f"run locallearn data get {known.name} --force."
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # NumPy fails in many ways on a garbled header
        reason = str(error).partition("\n")[0]
        raise LocalLearnError(f"{path} cannot be read ({reason}): {remedy}") from None
    if fingerprint(array) != known.sha256[path.stem]:
        raise LocalLearnError(f"{path} is damaged (its content has another SHA-256): {remedy}")
    return array

"""Data sets on disk: a folder for each, the same four files in all, every byte checked when read.

Where the SHA-256 of the arrays as published is not known beforehand, a fifth file holds that of the arrays that were
made of the published files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from locallearn._utils.atomic_files import flush_folder, is_disk_full, write_whole
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning
from locallearn.data.image_set import Split

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_RECORD = "content.json"
_FILES = frozenset(f"{name}.npy" for name in _ARRAYS)


@dataclass(frozen=True, kw_only=True)
class StoredSet:
    """What is known of a data set before it is there.

    Attributes:
        name: of its folder, and on the command line.
        title: as its authors write it.
        size: bytes on disk that getting it needs at most, and then that it takes.
        image: height, width and channels.
        classes: number of classes.
        train, test: number of images in each split.
        md5: of its files as published, as torchvision knows them; where arrays have no known fingerprints.
        sha256: `fingerprint` of each array: `train_images`, `train_labels`, `test_images`, `test_labels`; or none.
    """

    name: str
    title: str
    size: int
    image: tuple[int, int, int]
    classes: int
    train: int
    test: int
    md5: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)


def fingerprint(array: np.ndarray) -> str:
    """SHA-256 (hexadecimal) of the element type, the shape and the elements in C order."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def verify(known: StoredSet, train: Split, test: Split, *, source: str, published: bool = True) -> None:
    """Compare arrays with what is known of them.

    Args:
        known: the data set.
        train: its training split.
        test: its test split.
        source: what errors call it.
        published: whether it must be the published one, and not only of its kind.

    Raises:
        LocalLearnError: something differs; the sentence names `source` and it.
    """
    for name, split, count in (("training", train, known.train), ("test", test, known.test)):
        shape = split.images.shape[1:]
        if shape != known.image or len(split.images) != len(split.labels) or not len(split):
            raise LocalLearnError(
                f"{source} does not hold {known.title}: its {name} split has {len(split.labels):,} labels and"
                f" {len(split.images):,} images of {_by(shape)}, not of {_by(known.image)}."
            )
        if split.labels.min() < 0 or split.labels.max() >= known.classes:
            raise LocalLearnError(
                f"{source} does not hold {known.title}: its {name} split has labels from {split.labels.min()} to"
                f" {split.labels.max()} for {known.classes} classes."
            )
        if published and len(split) != count:
            raise LocalLearnError(
                f"{source} does not hold {known.title} as published: its {name} split has {len(split):,} images, not"
                f" {count:,}."
            )
    arrays = _named(train, test)
    wrong = [name for name, expected in known.sha256.items() if fingerprint(arrays[name]) != expected]
    if published and wrong:
        raise LocalLearnError(
            f"{source} does not hold {known.title} as published: SHA-256 differs for {', '.join(wrong)}."
        )


def save(known: StoredSet, root: Path, train: Split, test: Split, *, published: bool = True) -> Path:
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
        arrays = _named(train, test)
        for name, array in arrays.items():
            _write(fresh / f"{name}.npy", array)
        if not (published and known.sha256):
            sha256 = {name: fingerprint(array) for name, array in arrays.items()}
            write_whole(fresh / _RECORD, json.dumps({"published": published, "sha256": sha256}, indent=2).encode())
        flush_folder(fresh)
        if os.path.lexists(target):
            target.rename(folder / "old")
        fresh.rename(target)
        flush_folder(root)
    return target


def load(known: StoredSet, root: Path) -> tuple[Split, Split]:
    """Read the training and test splits from `root/NAME`.

    A warning tells of a data set that is not the published one.

    Raises:
        LocalLearnError: they are not there, a file cannot be read, or its content is not the known one.
    """
    folder = root / known.name
    if not any((folder / file).exists() for file in _FILES):
        raise LocalLearnError(
            f"{known.title} is not at {folder}: run locallearn data get {known.name},"
            " or give the folder that holds your data sets with --data-dir."
        )
    published, sha256 = _recorded(known, folder)
    arrays = {name: _read(known, folder / f"{name}.npy", sha256[name]) for name in _ARRAYS}
    train = Split(images=arrays["train_images"], labels=arrays["train_labels"])
    test = Split(images=arrays["test_images"], labels=arrays["test_labels"])
    if not published:
        warnings.warn(
            f"{folder} holds {len(train):,} training and {len(test):,} test images that are not {known.title} as"
            f" published ({known.train:,} and {known.test:,}): figures are not comparable.",
            LocalLearnWarning,
            stacklevel=2,
        )
    return train, test


def is_published(known: StoredSet, root: Path) -> bool:
    """Whether what `load` finds was verified to be the published data set."""
    return _recorded(known, root / known.name)[0]


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
    strangers = (
        sorted(set(os.listdir(target)) - _FILES - {_RECORD}) if target.is_dir() else [target.name] * target.exists()
    )
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


def _recorded(known: StoredSet, folder: Path) -> tuple[bool, Mapping[str, str]]:
    """Whether a stored set was verified to be the published one, and the fingerprints its arrays must have."""
    path = folder / _RECORD
    if known.sha256 and not path.exists():
        return True, known.sha256
    try:
        record = json.loads(path.read_bytes())
        return bool(record["published"]), {name: record["sha256"][name] for name in _ARRAYS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LocalLearnError(f"{path} cannot be read ({error}): {_remedy(known)}") from None


def _read(known: StoredSet, path: Path, sha256: str) -> np.ndarray:
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # NumPy fails in many ways on a garbled header
        reason = str(error).partition("\n")[0]
        raise LocalLearnError(f"{path} cannot be read ({reason}): {_remedy(known)}") from None
    if fingerprint(array) != sha256:
        raise LocalLearnError(f"{path} is damaged (its content has another SHA-256): {_remedy(known)}")
    return array


def _remedy(known: StoredSet) -> str:
    return f"run locallearn data get {known.name} --force."


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))

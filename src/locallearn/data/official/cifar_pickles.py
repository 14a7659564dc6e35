"""CIFAR's pickled batches, read without running what a pickle asks for."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from locallearn.data.batches import Split
from locallearn.data.published_set import parse_file


def read_batch(path: Path, labels: str) -> Split:
    """The images of an official batch, in which each image is a row of three planes: red, green, blue.

    Args:
        path: of the pickle.
        labels: the key of the labels.

    Raises:
        LocalLearnError: it is garbled, or asks for more than arrays.
    """
    return parse_file(path, lambda path: _parse(path, labels))


def _parse(path: Path, labels: str) -> Split:
    with path.open("rb") as file:
        batch = _ArraysOnly(file, encoding="bytes").load()
    batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
    images, numbers = batch["data"].reshape(-1, 3, 32, 32), np.asarray(batch[labels], np.int64)
    if images.dtype != np.uint8 or numbers.shape != images.shape[:1]:
        raise ValueError(f"its images are {images.dtype} of shape {images.shape}, its labels of shape {numbers.shape}")
    return Split(images=np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels=numbers)


def write_batch(path: Path, split: Split) -> None:
    """Write images in the official form, with their labels under the key `labels`."""
    rows = np.ascontiguousarray(split.images.transpose(0, 3, 1, 2)).reshape(len(split), -1)
    path.write_bytes(pickle.dumps({"data": rows, "labels": split.labels.tolist()}, protocol=2))


def joined(splits: Sequence[Split]) -> Split:
    """One split of several."""
    return Split(
        images=np.concatenate([split.images for split in splits]),
        labels=np.concatenate([split.labels for split in splits]),
    )


def _dtype(name: Any, align: Any = False, copy: Any = False) -> np.dtype:
    return np.dtype(name, align=bool(align), copy=bool(copy))  # old pickles pass 0 and 1, at which NumPy 2.4 warns


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays, numbers, texts, lists and dicts; a pickle that asks for more could run any program."""

    # What NumPy names in its pickles, as the installed version has it: the modules moved in NumPy 2.
    _allowed: Mapping[str, Any] = {
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": _dtype,
        "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
        "numpy.core.numeric._frombuffer": np.empty(1).__reduce_ex__(5)[0],
        "_codecs.encode": codecs.encode,  # how Python 3 writes bytes for Python 2
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name.replace('numpy._core', 'numpy.core')}.{global_name}"
        if name not in self._allowed:
            raise pickle.UnpicklingError(f"it asks for {name}, which no array needs, and was not obeyed")
        return self._allowed[name]

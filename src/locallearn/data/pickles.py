"""CIFAR's pickled batches, read without running what a pickle asks for."""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np


def cifar_batch(content: bytes, labels: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of an official batch, whose images are planes of red, green and blue.

    Args:
        content: the pickle.
        labels: under which key the labels are.

    Returns:
        uint8 (n, 32, 32, 3) and int64 (n,).
    """
    batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images, np.uint8), np.asarray(batch[labels], np.int64).reshape(-1)


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

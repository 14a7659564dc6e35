"""The state that a module's forward pass reads and changes besides its input, so that it can run again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

_WRITE_ONLY = {
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
}
"""Layers that in training write their buffers and never read them."""

_NUMBERS = (bool, int, float, str, type(None))


class ModuleState:
    """The state of a module as it was before its first run.

    The state is its buffers, numbers among its attributes, and Python's and NumPy's random numbers: `spectral_norm`
    advances its vectors, a layer may count its calls or draw from `random`. PyTorch's random numbers are not in it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._buffers: dict[tuple[int, str], Tensor] = {}
        self._numbers: list[tuple[dict[str, Any], str, Any]] = []

    @contextmanager
    def first_run(self) -> Iterator[None]:
        """Around the first run: remembers what the run changes, as it was before."""
        self._random = random.getstate(), np.random.get_state()
        parts = list(self._module.modules())
        buffers = [
            (part, name, buffer, buffer._version, None if type(part) in _WRITE_ONLY else buffer.clone())
            for part in parts
            for name, buffer in part._buffers.items()
            if buffer is not None
        ]
        numbers = [
            (attributes, name, value)
            for attributes in (vars(part) for part in parts)
            for name, value in attributes.items()
            if isinstance(value, _NUMBERS)
        ]
        yield
        self._buffers = {
            (id(part), name): copy
            for part, name, buffer, version, copy in buffers
            if copy is not None and (part._buffers.get(name) is not buffer or buffer._version != version)
        }
        self._numbers = [
            (attributes, name, value) for attributes, name, value in numbers if attributes.get(name, self) != value
        ]

    @contextmanager
    def another_run(self) -> Iterator[None]:
        """Around another run: it sees the state of before the first one; afterwards the module is as it is now."""
        buffers = [
            (part, name, buffer)
            for part in self._module.modules()
            for name, buffer in part._buffers.items()
            if buffer is not None
        ]
        numbers = [(attributes, name, attributes.get(name)) for attributes, name, _ in self._numbers]
        state = random.getstate(), np.random.get_state()
        try:
            for part, name, buffer in buffers:
                part._buffers[name] = self._buffers.get((id(part), name), buffer).clone()
            self._restore(self._numbers, self._random)
            yield
        finally:
            for part, name, buffer in buffers:
                part._buffers[name] = buffer
            self._restore(numbers, state)

    @staticmethod
    def _restore(numbers: list[tuple[dict[str, Any], str, Any]], state: tuple[Any, Any]) -> None:
        for attributes, name, value in numbers:
            attributes[name] = value
        random.setstate(state[0])
        np.random.set_state(state[1])


class EachTime:
    """A context that may be entered several times, one after the other: each time `make` makes it anew."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make

    def __enter__(self) -> None:
        self._context = self._make()
        self._context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

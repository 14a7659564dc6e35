"""CUDA graphs on a CPU: records operators, and replays them on the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ATEN = torch.ops.aten
WAITING = {
    _ATEN._local_scalar_dense.default,
    _ATEN.is_nonzero.default,
    _ATEN.nonzero.default,
    _ATEN.masked_select.default,
    _ATEN._unique2.default,
}
"""Operators whose result, or its size, Python waits for."""


class Recording(TorchDispatchMode):
    """Records operators. As on a GPU, recording computes nothing: tensors that they write on are restored at the end.

    An operator whose value Python reads is an error, as on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITING:
            raise RuntimeError(f"{func} waits for the device, which cannot be recorded")
        for tensor in _tensors((args, kwargs)):  # the schemas of some operators do not say what they write on
            self._copy_once(tensor)
        result = func(*args, **(kwargs or {}))
        self.operators.append((func, args, kwargs or {}, _tensors(result)))
        self._made |= {id(tensor.untyped_storage()) for tensor in _tensors(result)}
        return result

    def _copy_once(self, tensor: Tensor) -> None:
        key = id(tensor.untyped_storage())
        if key not in self._made and key not in self._before:
            self._before[key] = tensor, tensor.detach().clone()

    def __enter__(self) -> Recording:
        self._random = torch.get_rng_state()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_rng_state(self._random)
        with torch.no_grad():
            for tensor, value in self._before.values():
                tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, outputs in self.operators:
            inputs = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
            for old, new in zip(outputs, _tensors(func(*args, **kwargs)), strict=True):
                if old.untyped_storage().data_ptr() not in inputs:  # no view of an input
                    old.detach().copy_(new)


def recorded(work: Callable[[], None]) -> Callable[[], None]:
    """For `CapturedSteps(record=recorded)`."""
    with Recording() as recording:
        work()
    return recording.replay


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]

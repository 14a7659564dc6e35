"""Live bytes: the memory of all tensors of a computation, counted by their storages."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from locallearn._torch.private_api import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """While active, counts the bytes of all storages that operators create, until they are freed.

    Works on real and on fake tensors, on any device. Memory that an operator uses internally is not counted.

    Args:
        known: existing tensors, which are not counted.
        parameters: their gradients count as gradients, not as activations.

    Attributes:
        activations: live bytes at this moment, without gradients of parameters.
        peak_activations: largest number of live bytes, without gradients of parameters.
        peak: largest number of live bytes, with gradients of parameters.
    """

    def __init__(self, *, known: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.peak_activations = self.peak = 0
        self.activations = self._gradients = 0
        self._known = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in known)}
        self._live: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}
        self._is_gradient: set[int] = set()
        self._parameters = list(parameters)

    @property
    def now(self) -> int:
        """Live bytes at this moment, with gradients of parameters."""
        return self.activations + self._gradients

    def take_peak(self) -> int:
        """The peak of activations since the last call; counting begins anew."""
        peak, self.peak_activations = self.peak_activations, self.activations
        return peak

    def __enter__(self) -> Self:
        trained = [parameter for parameter in self._parameters if parameter.requires_grad]
        self._hooks = [parameter.register_post_accumulate_grad_hook(self._mark_gradient) for parameter in trained]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._known or key in self._live:
            return
        self._live[key] = weakref.ref(storage, lambda _: self._remove(key)), storage.nbytes()
        self.activations += storage.nbytes()
        self.peak_activations = max(self.peak_activations, self.activations)
        self.peak = max(self.peak, self.activations + self._gradients)

    def _remove(self, key: int) -> None:
        _, size = self._live.pop(key)
        if key in self._is_gradient:
            self._is_gradient.remove(key)
            self._gradients -= size
        else:
            self.activations -= size

    def _mark_gradient(self, parameter: Tensor) -> None:
        key = id(parameter.grad.untyped_storage()) if parameter.grad is not None else None
        if key in self._live and key not in self._is_gradient:
            self._is_gradient.add(key)
            self.activations -= self._live[key][1]
            self._gradients += self._live[key][1]


def tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors among an operator's arguments or results: PyTorch's own flattening takes longer than the counting."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))

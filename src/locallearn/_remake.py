"""Normalisation and activation made again in the backward pass instead of being kept.

A normalisation keeps its input for its backward pass. What it and the activation behind it give is kept besides, by the
activation and by the next convolution, though cheap elementwise work can make it again from that input.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from locallearn import _private

Make = Callable[[Tensor, bool], Tensor]
"""From a source, and whether it may be written on, to what was made of it."""


class Remade(TorchFunctionMode):
    """While active, tensors kept for the backward pass are replaced, where that is cheap, by how to make them again.

    It changes no module and no value: what is made again has the same bits.
    """

    def __init__(self) -> None:
        super().__init__()
        self._recipes: dict[int, _Recipe] = {}
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._kept: weakref.WeakSet[_Kept] = weakref.WeakSet()
        self._keeping: list[_Kept] | None = None  # by the function that runs
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, _Kept.tensor)

    def __enter__(self) -> Remade:
        self._hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.__exit__(*error)
        self._recipes.clear()  # they hold their sources

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _CHEAP:
            return func(*args, **kwargs)
        source = args[0] if args else kwargs["input"]
        recipe = self._recipe_of(source)
        keeping = self._keeping = []
        result = func(*args, **kwargs)
        self._keeping = None
        make = _CHEAP[func](result, *args, **kwargs) if result.requires_grad else None
        if make is not None:
            self._learn(result, source, recipe, make, keeping)
        return result

    def stand_in(self, result: Tensor, original: Tensor) -> None:
        """Where `result` is kept, keep its original, of equal values, which is alive anyway."""
        for kept in list(self._kept):
            if kept.is_of(result):
                kept.keep(original)

    def _learn(
        self, result: Tensor, source: Tensor, recipe: _Recipe | None, make: Make, keeping: Sequence[_Kept]
    ) -> None:
        """From now on, keep how `result` was made; also where the function itself kept it just before."""
        storage, in_place = result.untyped_storage(), result is source
        if recipe is None and (in_place or not any(kept.is_of(source) for kept in keeping)):
            return  # the source is gone, or would be kept for this alone
        made = _Recipe(source.detach() if recipe is None else recipe, make, result)
        self._recipes[id(storage)] = made
        self._storages[id(storage)] = weakref.ref(storage, self._forget)
        for kept in keeping:
            if kept.is_of(result):
                kept.become(made)
            elif in_place and recipe is not None and kept.is_like(result):
                kept.become(recipe)  # a copy of the source, made before it was overwritten

    def _forget(self, storage: weakref.ref[torch.UntypedStorage]) -> None:
        for key in [key for key, found in self._storages.items() if found is storage]:
            del self._storages[key]
            self._recipes.pop(key, None)

    def _recipe_of(self, tensor: Tensor) -> _Recipe | None:
        recipe = self._recipes.get(id(tensor.untyped_storage()))
        return recipe if recipe is not None and recipe.makes(tensor) else None

    def _keep(self, tensor: Tensor) -> _Kept:
        kept = _Kept(tensor)
        self._kept.add(kept)
        if (recipe := self._recipe_of(tensor)) is not None:
            kept.become(recipe)
        elif self._keeping is not None:
            self._keeping.append(kept)
        return kept


class _Kept:
    """A tensor kept for the backward pass, or how to make it."""

    def __init__(self, tensor: Tensor) -> None:
        self._recipe: _Recipe | None = None
        self.keep(tensor)

    def keep(self, tensor: Tensor) -> None:
        self._tensor: Tensor | None = tensor.detach()
        self._version = _private.version_of(tensor)

    def become(self, recipe: _Recipe) -> None:
        self._tensor, self._recipe = None, recipe
        recipe.uses += 1

    def is_of(self, tensor: Tensor) -> bool:
        return self._tensor is not None and self._tensor.untyped_storage() is tensor.untyped_storage()

    def is_like(self, tensor: Tensor) -> bool:
        return self._tensor is not None and self._tensor.shape == tensor.shape

    def tensor(self) -> Tensor:
        if self._recipe is not None:
            return self._recipe.take()
        assert self._tensor is not None
        _refuse_changed(self._tensor, self._version)
        return self._tensor


class _Recipe:
    """How to make a tensor: from a tensor that is kept anyway, or from what another recipe makes."""

    def __init__(self, source: Tensor | _Recipe, make: Make, result: Tensor) -> None:
        self.uses = 0
        self._source, self._make = source, make
        self._source_version = _private.version_of(source) if isinstance(source, Tensor) else 0
        self._layout = result.shape, result.stride(), result.dtype, result.storage_offset()
        self._version = _private.version_of(result)
        self._made: Tensor | None = None
        self._taken = 0

    def makes(self, tensor: Tensor) -> bool:
        layout = tensor.shape, tensor.stride(), tensor.dtype, tensor.storage_offset()
        return layout == self._layout and _private.version_of(tensor) == self._version

    def take(self) -> Tensor:
        """The tensor; it is held until it was taken as often as it would have been kept."""
        made = self._made = self._again() if self._made is None else self._made
        self._taken += 1
        if self._taken >= self.uses:
            self._made, self._taken = None, 0
        return made

    @torch.no_grad()
    def _again(self) -> Tensor:
        if isinstance(self._source, Tensor):
            _refuse_changed(self._source, self._source_version)
            return self._make(self._source, False)
        if self._source._made is not None:
            return self._make(self._source._made, False)
        return self._make(self._source._again(), True)


def _refuse_changed(tensor: Tensor, version: int) -> None:
    if _private.version_of(tensor) != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation:"
            f" a tensor of shape {tuple(tensor.shape)}"
        )


def _batch_norm(
    result: Tensor,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Make | None:
    if not training:
        return None  # running statistics may move before the backward pass

    def make(source: Tensor, _: bool) -> Tensor:
        return F.batch_norm(source, None, None, weight, bias, training=True, eps=eps)

    return make


def _activation(function: Callable[..., Tensor], in_place: Callable[..., Tensor] | None = None) -> Callable[..., Make]:
    def again(_: Tensor, input: Tensor, *args: Any, inplace: bool = False, **settings: Any) -> Make:
        numbers = [value for value in args if not isinstance(value, bool)]  # bool says whether it is done in place

        def make(source: Tensor, may_write: bool) -> Tensor:
            return (in_place if may_write and in_place else function)(source, *numbers, **settings)

        return make

    return again


_RELU = _activation(torch.relu, torch.relu_)

_CHEAP: dict[Any, Callable[..., Make | None]] = {
    F.batch_norm: _batch_norm,
    F.relu: _RELU,
    torch.relu: _RELU,
    torch.relu_: _RELU,
    Tensor.relu: _RELU,
    Tensor.relu_: _RELU,
    F.hardtanh: _activation(F.hardtanh),
    F.leaky_relu: _activation(F.leaky_relu),
    F.relu6: _activation(F.relu6),
    F.silu: _activation(F.silu),
    F.hardswish: _activation(F.hardswish),
    F.gelu: _activation(F.gelu),
}

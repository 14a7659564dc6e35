"""Normalisation and activation made again in the backward pass instead of being kept.

A normalisation keeps its input for its backward pass. What it and the activation behind it give is kept besides, by the
activation and by the next convolution, though cheap elementwise work can make it again from that input.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from locallearn._recompute.saved_tensors import Kept, Make, Recipe, refuse_changed
from locallearn._recompute.sliced import Pieces, activated, convolved
from locallearn._torch import private_api


class Remade(TorchFunctionMode):
    """While active, tensors kept for the backward pass are replaced, where that is cheap, by how to make them again.

    It changes no module and no value: what is made again has the same bits.

    Args:
        sliced: make activations and the inputs of convolutions again a few images at a time; gradients are then equal
            up to rounding.
    """

    def __init__(self, *, sliced: bool = False) -> None:
        super().__init__()
        self._sliced = sliced
        self._recipes: dict[int, Recipe] = {}
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._kept: weakref.WeakSet[Kept] = weakref.WeakSet()
        self._keeping: list[Kept] | None = None  # by the function that runs
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, Kept.tensor)

    def __enter__(self) -> Remade:
        self._hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.__exit__(*error)
        self._recipes.clear()  # they hold their sources

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and self._sliced:
            return self._convolve(*args, **kwargs)
        if func in _ADDITIONS and self._sliced:
            return self._add(func, *args, **kwargs)
        if func not in _CHEAP:
            return func(*args, **kwargs)
        source = args[0] if args else kwargs["input"]
        recipe = self._recipe_of(source)
        keeping = self._keeping = []
        result, pieces = self._run(func, source, recipe, args, kwargs)
        self._keeping = None
        make = _CHEAP[func](result, *args, **kwargs) if result.requires_grad else None
        if make is not None:
            self._learn(result, source, recipe, make, keeping, pieces)
        return result

    def _run(
        self, func: Any, source: Tensor, recipe: Recipe | None, args: Any, kwargs: Any
    ) -> tuple[Tensor, Pieces | None]:
        """What a cheap function gives, and how to make it for some images alone."""
        if not self._sliced:
            return func(*args, **kwargs), None
        if func is F.batch_norm:
            result = func(*args, **kwargs)
            return result, _normalised(result, *args, **kwargs) if result.requires_grad else None
        if recipe is None or recipe.pieces is None or recipe.pieces.activation is not None:
            return func(*args, **kwargs), None
        activation = _CHEAP[func](source, *args, **kwargs)
        assert activation is not None
        self._keeping = None  # what is kept now is the normalisation's input
        pieces = recipe.pieces.followed_by(activation, is_relu=_CHEAP[func] is _RELU)
        return activated(source, pieces, lambda features: func(features, *args[1:], **kwargs)), pieces

    def _convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None = None, *more: Any, **settings: Any) -> Any:
        recipe = self._recipe_of(input)
        stride, padding, dilation, groups = _settings_of_convolution(*more, **settings)
        if recipe is None or recipe.pieces is None or isinstance(padding, str):
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
        return convolved(input, recipe.pieces, weight, bias, _pair(stride), _pair(padding), _pair(dilation), groups)

    def _add(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """A sum of what a normalisation gives and of a tensor that is kept anyway, as in a residual block."""
        recipes = [self._recipe_of(value) if isinstance(value, Tensor) else None for value in args]
        result = func(*args, **kwargs)
        for (value, other), recipe in zip((args, args[::-1]), recipes, strict=True) if len(args) == 2 else ():
            if recipe is None or recipe.pieces is None or not recipe.pieces.is_open or kwargs:
                continue
            if isinstance(other, Tensor) and other.shape == value.shape and self._is_kept(other):
                added, version = other.detach(), private_api.version_of(other)

                def make(source: Tensor, may_write: bool, added: Tensor = added, version: int = version) -> Tensor:
                    refuse_changed(added, version)
                    return source.add_(added) if may_write else source + added

                self._learn(result, value, recipe, make, [], recipe.pieces.plus(other))
                break
        return result

    def _is_kept(self, tensor: Tensor) -> bool:
        return any(kept.is_of(tensor) for kept in self._kept)

    def stand_in(self, result: Tensor, original: Tensor) -> None:
        """Where `result` is kept, keep its original, of equal values, which is alive anyway."""
        for kept in list(self._kept):
            if kept.is_of(result):
                kept.keep(original)

    def _learn(
        self,
        result: Tensor,
        source: Tensor,
        recipe: Recipe | None,
        make: Make,
        keeping: Sequence[Kept],
        pieces: Pieces | None,
    ) -> None:
        """From now on, keep how `result` was made; also where the function itself kept it just before."""
        storage, in_place = result.untyped_storage(), result is source
        if recipe is None and (in_place or not any(kept.is_of(source) for kept in keeping)):
            return  # the source is gone, or would be kept for this alone
        made = Recipe(source.detach() if recipe is None else recipe, make, result, pieces)
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

    def _recipe_of(self, tensor: Tensor) -> Recipe | None:
        recipe = self._recipes.get(id(tensor.untyped_storage()))
        return recipe if recipe is not None and recipe.makes(tensor) else None

    def _keep(self, tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        self._kept.add(kept)
        if (recipe := self._recipe_of(tensor)) is not None:
            kept.become(recipe)
        elif self._keeping is not None:
            self._keeping.append(kept)
        return kept


class _BatchNorm(NamedTuple):
    """The arguments of `F.batch_norm`."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5


def _batch_norm(_: Tensor, *args: Any, **kwargs: Any) -> Make | None:
    norm = _BatchNorm(*args, **kwargs)
    if not norm.training:
        return None  # running statistics may move before the backward pass
    weight, bias, eps = norm.weight, norm.bias, norm.eps

    def make(source: Tensor, _: bool) -> Tensor:
        return F.batch_norm(source, None, None, weight, bias, training=True, eps=eps)

    return make


def _normalised(result: Tensor, *args: Any, **kwargs: Any) -> Pieces | None:
    norm = _BatchNorm(*args, **kwargs)
    return Pieces.of_batch_norm(result, norm.input, norm.weight, norm.bias) if norm.training else None


def _settings_of_convolution(stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> tuple[Any, ...]:
    return stride, padding, dilation, groups


def _pair(value: Any) -> list[int]:
    return list(value) * (2 // len(value)) if isinstance(value, Sequence) else [value, value]


def _activation(function: Callable[..., Tensor], in_place: Callable[..., Tensor] | None = None) -> Callable[..., Make]:
    def again(_: Tensor, input: Tensor, *args: Any, inplace: bool = False, **settings: Any) -> Make:
        numbers = [value for value in args if not isinstance(value, bool)]  # bool says whether it is done in place

        def make(source: Tensor, may_write: bool) -> Tensor:
            return (in_place if may_write and in_place else function)(source, *numbers, **settings)

        return make

    return again


_ADDITIONS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__}

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

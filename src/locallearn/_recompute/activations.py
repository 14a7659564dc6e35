"""Recomputes what layers give in the backward pass instead of saving it.

A normalisation saves its input. Its output, and the output of the activation after it, are saved as well, by the
activation and by the next convolution, though cheap elementwise work recomputes them from that input. That input in
turn is what a convolution gave, so it can be recomputed from the convolution's own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from locallearn._recompute.saved_tensors import Recomputation, Recompute, SavedTensor, refuse_changed
from locallearn._torch import private_api

_MOST_PRODUCTS = 3
"""Convolutions between a stored tensor and one that is recomputed from it: those of a bottleneck block."""

HowTo = Callable[..., Recompute | None]
"""From the arguments of a function's call to what repeats the call; None where its result may change."""


class RecomputeActivations(TorchFunctionMode):
    """While active, saves a recompute function instead of each activation that it knows how to recompute.

    The mode watches the functions of the forward pass to learn how each tensor was computed. It changes no module and
    no value: recomputed tensors have the same bits.

    Args:
        functions: those whose results are recomputed, each with the way how: `CHEAP`, or `CHEAP | PRODUCTS`.
    """

    def __init__(self, functions: Mapping[Any, HowTo]) -> None:
        super().__init__()
        self._functions = functions
        self._recomputations = WeakIdKeyDictionary()  # by the storage of their results
        self._saved: weakref.WeakSet[SavedTensor] = weakref.WeakSet()
        self._saved_now: list[SavedTensor] | None = None  # by the function that runs
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._save, SavedTensor.unpack)

    def __enter__(self) -> RecomputeActivations:
        self._hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.__exit__(*error)
        self._recomputations.clear()  # they hold their sources

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self._functions:
            return func(*args, **kwargs)
        source = args[0] if args else kwargs["input"]
        of_source = self._recomputation_of(source)
        products = (0 if of_source is None else of_source.products) + (func in PRODUCTS)
        if products > _MOST_PRODUCTS:
            return func(*args, **kwargs)
        saved_now = self._saved_now = []
        result = func(*args, **kwargs)
        self._saved_now = None
        recompute = self._functions[func](*args, **kwargs) if result.requires_grad else None
        if recompute is not None:
            self._learn(result, source, of_source, recompute, products, saved_now)
        return result

    def substitute(self, result: Tensor, original: Tensor) -> None:
        """Where `result` is saved, save its original instead: it has equal values and is alive anyway."""
        for saved in list(self._saved):
            if saved.shares_storage_with(result):
                saved.store(original)

    def _learn(
        self,
        result: Tensor,
        source: Tensor,
        of_source: Recomputation | None,
        recompute: Recompute,
        products: int,
        saved_now: Sequence[SavedTensor],
    ) -> None:
        """From now on, save how `result` was computed; also where the function itself saved it just before."""
        storage, in_place = result.untyped_storage(), result is source
        if of_source is None and (in_place or not any(saved.shares_storage_with(source) for saved in saved_now)):
            return  # the source is gone, or would be saved for this alone
        learned = Recomputation(source.detach() if of_source is None else of_source, recompute, result, products)
        self._recomputations[storage] = learned
        for saved in saved_now:
            if saved.shares_storage_with(result):
                saved.replace_by(learned)
            elif in_place and of_source is not None and saved.has_shape_of(result):
                saved.replace_by(of_source)  # a copy of the source, made before it was overwritten

    def _recomputation_of(self, tensor: Tensor) -> Recomputation | None:
        known = self._recomputations.get(tensor.untyped_storage())
        return known if known is not None and known.gives(tensor) else None

    def _save(self, tensor: Tensor) -> SavedTensor:
        saved = SavedTensor(tensor)
        self._saved.add(saved)
        if (known := self._recomputation_of(tensor)) is not None:
            saved.replace_by(known)
        elif self._saved_now is not None:
            self._saved_now.append(saved)
        return saved


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Recompute | None:
    if not training:
        return None  # running statistics may move before the backward pass

    def recompute(source: Tensor, _: bool) -> Tensor:
        return F.batch_norm(source, None, None, weight, bias, training=True, eps=eps)

    return _unless_changed(recompute, weight, bias)


def _unless_changed(recompute: Recompute, *read: Any) -> Recompute:
    """The same, but PyTorch's own error where a tensor that it reads besides its source was written on meanwhile."""
    versions = [(value, private_api.version_of(value)) for value in read if isinstance(value, Tensor)]

    def checked(source: Tensor, may_overwrite: bool) -> Tensor:
        for tensor, version in versions:
            refuse_changed(tensor, version)
        return recompute(source, may_overwrite)

    return checked


def _activation(function: Callable[..., Tensor], in_place: Callable[..., Tensor] | None = None) -> HowTo:
    def recomputation(input: Tensor, *args: Any, inplace: bool = False, **settings: Any) -> Recompute:
        numbers = [value for value in args if not isinstance(value, bool)]  # a bool says whether it works in place

        def recompute(source: Tensor, may_overwrite: bool) -> Tensor:
            return (in_place if may_overwrite and in_place else function)(source, *numbers, **settings)

        return recompute

    return recomputation


def _product(function: Callable[..., Tensor]) -> HowTo:
    def recomputation(input: Tensor, *args: Any, **settings: Any) -> Recompute:
        device = input.device.type
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

        def recompute(source: Tensor, _: bool) -> Tensor:
            with torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False):
                return function(source, *args, **settings)

        return _unless_changed(recompute, *args, *settings.values())

    return recomputation


_RELU = _activation(torch.relu, torch.relu_)

CHEAP: dict[Any, HowTo] = {
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
"""Normalisations and activations: elementwise work."""

PRODUCTS: dict[Any, HowTo] = {function: _product(function) for function in (F.conv2d, F.linear)}
"""Convolutions and linear layers."""

"""The work of a computation, and the time that it should take: an estimate from counted operators."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from locallearn._torch.private_api import TorchDispatchMode, tree_leaves

SECONDS: dict[str, float] = {
    "call": 5.93e-06,
    "byte": 5.01e-11,
    "mac of convolutions": 1.5e-11,
    "mac of matrix products": 6.86e-12,
}
"""Seconds for one of each kind of work, on one core of a server processor; `benchmarks/plan.py` finds them."""

Convention = Mapping[Any, Callable[..., int]]
"""Operators counted besides convolutions and matrix products, each with a function from shapes to operations, doubled
because PyTorch's counter counts a multiply-accumulate as two."""


def counted_macs(function: Callable[..., Any], *args: Any, convention: Convention | None = None) -> tuple[int, Any]:
    """Multiply-accumulates of a call, and its result."""
    with FlopCounterMode(display=False, custom_mapping=dict(convention or {})) as counter:
        result = function(*args)
    return counter.get_total_flops() // 2, result


class Work(TorchDispatchMode):
    """While active, counts what operators do: calls, bytes read and written, multiply-accumulates by kind.

    Works on fake tensors too, and then takes no time but that of counting.

    Attributes:
        counts: the amount of each kind of work, by the names in `SECONDS`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: defaultdict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view or func in _FREE:
            return result
        self.counts["call"] += 1
        tensors = [value for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor)]
        self.counts["byte"] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            macs = count(*args, **kwargs, out_val=result) // 2
            is_grouped = func.overloadpacket is _aten.convolution_backward and args[9] > 1
            self.counts[_kind(func)] += _grouped_backward(args) if is_grouped else macs
        return result

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all kinds."""
        return round(sum(count for name, count in self.counts.items() if name.startswith("mac ")))

    @property
    def seconds(self) -> float:
        """The predicted time."""
        return seconds(self.counts)


def seconds(counts: Mapping[str, float]) -> float:
    """Predicted time of counted work, on the processor of the calibration: compare, rather than believe, it."""
    return sum(SECONDS[kind] * count for kind, count in counts.items())


_aten = torch.ops.aten
_CONVOLUTIONS = {_aten.convolution, _aten._convolution, _aten.convolution_backward}
_FREE = {_aten.detach.default, _aten.empty.memory_format, _aten.empty_like.default, _aten.new_empty.default}


def _grouped_backward(args: Any) -> int:
    """PyTorch's own count is of a convolution that is not grouped."""
    gradient, weight, wanted = args[0], args[2], args[10]
    return gradient.numel() * prod(weight.shape[1:]) * sum(wanted[:2])


def _kind(func: Any) -> str:
    return "mac of convolutions" if func.overloadpacket in _CONVOLUTIONS else "mac of matrix products"

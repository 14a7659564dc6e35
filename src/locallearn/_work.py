"""The work of a computation, and the time that it should take: an estimate from counted operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from locallearn._private import TorchDispatchMode, tree_leaves

SECONDS: dict[str, float] = {
    "call": 4.0e-6,
    "byte": 1.4e-10,
    "macs of narrow convolutions": 2.4e-11,
    "macs of middle convolutions": 1.4e-11,
    "macs of wide convolutions": 1.2e-11,
    "macs of grouped convolutions": 1.0e-10,
    "macs of matrix products": 2.0e-11,
}
"""Seconds for one of each kind of work, on one core of a server processor; `benchmarks/plan.py` finds them."""

_NARROW, _WIDE = 24, 48
"""Channels from which convolutions use the units of a processor better."""


class Work(TorchDispatchMode):
    """While active, counts what operators do: calls, bytes read and written, multiply-accumulates by kind.

    Works on fake tensors too, and then takes no time but that of counting.

    Attributes:
        counts: the amount of each kind of work, by the names in `SECONDS`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view or func in _FREE:
            return result
        self.counts["call"] += 1
        tensors = [value for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor)]
        self.counts["byte"] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.counts[_kind(func, args)] += count(*args, **kwargs, out_val=result) // 2
        return result

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all kinds."""
        return sum(count for name, count in self.counts.items() if name.startswith("macs"))

    @property
    def seconds(self) -> float:
        """The predicted time."""
        return seconds(self.counts)


def seconds(counts: Mapping[str, float]) -> float:
    """Predicted time of counted work, on the processor of the calibration: compare, rather than believe, it."""
    return sum(SECONDS[kind] * count for kind, count in counts.items())


_aten = torch.ops.aten
_CONVOLUTIONS = {
    _aten.convolution: (1, 8),
    _aten._convolution: (1, 8),
    _aten.convolution_backward: (2, 9),
    _aten.convolution_overrideable: (1, 8),
}
"""Where the weight and the number of groups stand among the arguments."""

_FREE = {_aten.detach.default, _aten.empty.memory_format, _aten.empty_like.default, _aten.new_empty.default}


def _kind(func: Any, args: Any) -> str:
    if func.overloadpacket not in _CONVOLUTIONS:
        return "macs of matrix products"
    weight, groups = (args[place] for place in _CONVOLUTIONS[func.overloadpacket])
    if groups > 1:
        return "macs of grouped convolutions"
    width = min(weight.shape[0], weight.shape[1])
    size = "narrow" if width < _NARROW else "middle" if width < _WIDE else "wide"
    return f"macs of {size} convolutions"

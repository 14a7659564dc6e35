"""The work of a computation in counted operators, and its predicted time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from locallearn._torch.live_bytes import tensors_in
from locallearn._torch.private_api import TorchDispatchMode

SECONDS: dict[str, float] = {
    "call": 5.93e-06,
    "byte": 5.01e-11,
    "mac of convolutions": 1.5e-11,
    "mac of matrix products": 6.86e-12,
}
"""Seconds for one unit of each kind of work, on one core of a server processor; measured by `benchmarks/plan.py`."""

Convention = Mapping[Any, Callable[..., int]]
"""Operators to count besides convolutions and matrix products, each with a function from shapes to operations. The
function returns twice the number, because PyTorch's counter takes a multiply-accumulate as two."""


def counted_macs(function: Callable[..., Any], *args: Any, convention: Convention | None = None) -> tuple[int, Any]:
    """The multiply-accumulates of a call, and its result."""
    with FlopCounterMode(display=False, custom_mapping=dict(convention or {})) as counter:
        result = function(*args)
    return counter.get_total_flops() // 2, result


class Work(TorchDispatchMode):
    """While active, counts the work of operators: calls, bytes read and written, multiply-accumulates by kind.

    Works on real and on fake tensors.

    Attributes:
        counts: the amount of each kind of work, by the names in `SECONDS`.
        times: how often each operator counts, until it is set to another number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: defaultdict[str, float] = defaultdict(float)
        self.times = 1.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view or func in _FREE:
            return result
        self.counts["call"] += self.times
        self.counts["byte"] += self.times * sum(tensor.nbytes for tensor in tensors_in((args, kwargs, result)))
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            macs = count(*args, **kwargs, out_val=result) // 2
            is_grouped = func.overloadpacket is _aten.convolution_backward and args[9] > 1
            self.counts[_kind(func)] += self.times * (_grouped_backward(args) if is_grouped else macs)
        return result

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all kinds."""
        return round(sum(count for name, count in self.counts.items() if name.startswith("mac ")))

    @property
    def seconds(self) -> float:
        """Predicted time on the processor where `SECONDS` was measured; use it for comparisons."""
        return sum(SECONDS[kind] * count for kind, count in self.counts.items())


_aten = torch.ops.aten
_CONVOLUTIONS = {_aten.convolution, _aten._convolution, _aten.convolution_backward}
_FREE = {_aten.detach.default, _aten.empty.memory_format, _aten.empty_like.default, _aten.new_empty.default}


def _grouped_backward(args: Any) -> int:
    """Multiply-accumulates of a grouped convolution's backward pass; PyTorch counts them as if it had one group."""
    gradient, weight, wanted = args[0], args[2], args[10]
    return gradient.numel() * prod(weight.shape[1:]) * sum(wanted[:2])


def _kind(func: Any) -> str:
    return "mac of convolutions" if func.overloadpacket in _CONVOLUTIONS else "mac of matrix products"

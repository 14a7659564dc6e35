"""Which dimension of a tensor has its channels, by the operators that computed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from locallearn._torch.live_bytes import tensors_in
from locallearn._torch.private_api import TorchDispatchMode


@dataclass(frozen=True)
class _Channels:
    """The dimension of a tensor's channels, and the number of the operator that set it."""

    dimension: int
    since: int


class ChannelTracker(TorchDispatchMode):
    """While active, follows where the channels of features are.

    Convolutions and the normalisations of maps have channels in dimension 1. Products with a weight have them in the
    dimension that the weight gives, and layer normalisation over one dimension has them in the last. Views and
    permutations move them; all other operators leave them. Where operands disagree, the older one is right: it is the
    shortcut around a layer that mixes positions.
    """

    def __init__(self) -> None:
        super().__init__()
        self._channels: Any = WeakTensorKeyDictionary()
        self._operators = 0

    def mark(self, tensor: Tensor, dimension: int) -> None:
        """Say where the channels of a tensor are."""
        self._channels[tensor] = _Channels(dimension, self._operators)

    def dimension_of(self, tensor: Tensor) -> int | None:
        """The dimension of a tensor's channels, or None where no operator tells."""
        channels = self._channels.get(tensor)
        return channels.dimension if channels else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._operators += 1
        features = [value for value in tensors_in(args) if value in self._channels]
        before = [(tensor.shape, self._channels[tensor]) for tensor in features]  # an operator may write on it
        result = func(*args, **(kwargs or {}))
        if features:
            name = func.overloadpacket.__name__
            for output in tensors_in(result):
                self._channels[output] = self._after(name, args, before, output)
        return result

    def _after(self, name: str, args: Any, before: list[Any], output: Tensor) -> _Channels | None:
        shape, channels = before[0]
        if name in _CHANNELS_FIRST or name.startswith(("native_batch_norm", "_native_batch_norm", "_batch_norm_with")):
            return self._set(1) if output.dim() > 1 else None
        if name == "native_layer_norm" and len(args[1]) == 1:
            return self._set(output.dim() - 1)
        if name in PRODUCTS:
            first = PRODUCTS[name]
            return self._of_product(args[first], args[first + 1], output)
        if name.startswith("_scaled_dot_product"):
            return self._channels.get(args[2])
        if name in _MOVES:
            moved = channels and _MOVES[name](args, shape, channels.dimension, output.shape)
            return None if moved is None else _Channels(moved, channels.since)
        known = [channels for shape, channels in before if channels and len(shape) == output.dim()]
        return min(known, key=lambda channels: channels.since, default=None)

    def _of_product(self, left: Tensor, right: Tensor, output: Tensor) -> _Channels | None:
        last = output.dim() - 1
        if right not in self._channels:
            return self._set(last)
        if left not in self._channels:
            return self._set(last - 1)
        channels = self._channels[right]
        return channels if channels and channels.dimension == last else None

    def _set(self, dimension: int) -> _Channels:
        return _Channels(dimension, self._operators)


_CHANNELS_FIRST = {"convolution", "_convolution", "native_group_norm", "cudnn_batch_norm", "miopen_batch_norm"}
PRODUCTS = {"mm": 0, "bmm": 0, "linear": 0, "matmul": 0, "addmm": 1, "baddbmm": 1}
"""Names of operators that multiply matrices, to the index of the first of the two."""


def _permuted(args: Any, shape: Sequence[int], channels: int, after: Sequence[int]) -> int | None:
    return [dimension % len(shape) for dimension in args[1]].index(channels)


def _transposed(args: Any, shape: Sequence[int], channels: int, after: Sequence[int]) -> int | None:
    one, other = (dimension % len(shape) for dimension in (args[1:3] if len(args) > 1 else (0, -1)))
    return {one: other, other: one}.get(channels, channels)


def _removed(args: Any, shape: Sequence[int], channels: int, after: Sequence[int]) -> int | None:
    """After dimensions were reduced or selected: `args[1]`, or all."""
    if len(after) == len(shape):
        return channels
    dimensions = args[1] if len(args) > 1 else 0
    dimensions = [dimensions] if isinstance(dimensions, int) else dimensions or range(len(shape))
    gone = {dimension % len(shape) for dimension in dimensions}
    return None if channels in gone else channels - sum(dimension < channels for dimension in gone)


def _squeezed(args: Any, shape: Sequence[int], channels: int, after: Sequence[int]) -> int | None:
    ones = [dimension for dimension, size in enumerate(shape) if size == 1]
    return _removed(args if len(args) > 1 else (None, ones), shape, channels, after)


def _inserted(args: Any, shape: Sequence[int], channels: int, after: Sequence[int]) -> int | None:
    """After a new dimension `args[1]`."""
    dimension = (args[1] if len(args) > 1 else 0) % len(after)
    return channels + (dimension <= channels)


def _expanded(args: Any, shape: Sequence[int], channels: int, after: Sequence[int]) -> int | None:
    return channels + len(after) - len(shape)


def _viewed(args: Any, shape: Sequence[int], channels: int, after: Sequence[int]) -> int | None:
    """After a view: where channels are merged with neighbours, or divided into groups, the last of these dimensions."""
    for old, new in _matching(shape, after):
        if channels in old:
            wide = [dimension for dimension in new if after[dimension] > 1] or new
            merges = sum(shape[dimension] > 1 for dimension in old) > 1
            return None if not wide or (merges and len(wide) > 1) else wide[-1]
    return None


def _matching(shape: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of neighbouring dimensions, before and after a view, with the same number of values."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(shape) and j < len(after):
        old, new = [i], [j]
        i, j = i + 1, j + 1
        while (a := prod(shape[k] for k in old)) != (b := prod(after[k] for k in new)):
            if a < b and i < len(shape):
                old.append(i)
                i += 1
            elif j < len(after):
                new.append(j)
                j += 1
            else:
                return groups
        groups.append((old, new))
    if groups:  # dimensions of one value are left
        groups[-1] = ([*groups[-1][0], *range(i, len(shape))], [*groups[-1][1], *range(j, len(after))])
    return groups


_MOVES = {
    **dict.fromkeys(("permute",), _permuted),
    **dict.fromkeys(("transpose", "t", "transpose_"), _transposed),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), _viewed),
    **dict.fromkeys(("select", "unbind", "mean", "sum", "amax", "amin", "max", "min", "var", "std"), _removed),
    **dict.fromkeys(("squeeze", "squeeze_"), _squeezed),
    **dict.fromkeys(("unsqueeze", "unsqueeze_", "stack"), _inserted),
    **dict.fromkeys(("expand",), _expanded),
}
"""Names of operators that move dimensions, to where they move the channels."""

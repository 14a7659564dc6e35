"""Where the positions of a map are in later tensors, by the operators that computed them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from locallearn._chain.channel_tracker import PRODUCTS
from locallearn._chain.positions import (
    Dimension,
    Dimensions,
    joined_parts,
    places,
    resized,
    shows_positions,
    sliced,
    unknown,
    viewed,
    whole,
)
from locallearn._torch.live_bytes import tensors_in
from locallearn._torch.private_api import TorchDispatchMode


class PositionTracker(TorchDispatchMode):
    """While active, follows height and width of the images through views, permutations, concatenations and slices.

    Convolutions over dimensions that show neither begin a map of their own. Operators that do not move dimensions
    leave them; where operands disagree, the first that shows positions is right.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._known: Any = WeakTensorKeyDictionary()
        batch, channels, height, width = images.shape
        self._known[images] = whole(batch), whole(channels), whole(height, "height"), whole(width, "width")

    def dimensions_of(self, tensor: Tensor) -> Dimensions:
        """What each dimension of a tensor counts."""
        return self._known.get(tensor) or unknown(tensor.shape)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = list(tensors_in(args))
        before = [self._known.get(tensor) for tensor in given]  # an operator may write on it
        shapes = [tensor.shape for tensor in given]
        result = func(*args, **(kwargs or {}))
        operands = [
            (shape, known or unknown(shape)) for shape, known in zip(shapes, before, strict=True) if known is not None
        ]
        if operands:
            name = func.overloadpacket.__name__
            outputs = list(tensors_in(result))
            for index, output in enumerate(outputs):
                self._known[output] = self._after(name, args, operands, outputs, index)
        return result

    def _after(self, name: str, args: Any, operands: list[Any], outputs: list[Tensor], index: int) -> Dimensions:
        shape = outputs[index].shape
        first = operands[0][1]
        if name in PRODUCTS:
            left, right = args[PRODUCTS[name]], args[PRODUCTS[name] + 1]
            return _product(self._known.get(left), self._known.get(right), shape)
        if name == "cat":
            return self._concatenated(args, shape)
        if name in _SPLITS:
            dimension = _dimension(args, 2, len(shape))
            start = sum(output.shape[dimension] for output in outputs[:index])
            part = sliced(first[dimension], start, start + shape[dimension], 1, shape[dimension])
            return *first[:dimension], part, *first[dimension + 1 :]
        if name in _MOVES:
            return _fitting(_MOVES[name](args, first, shape), shape)
        after = _like_operands(operands, shape)
        if name in ("convolution", "_convolution") and len(shape) > 2:
            after = after[0], whole(shape[1]), *after[2:]
            if len(shape) == 4 and min(args[1].shape[2:]) > 1 and not any(map(shows_positions, after)):
                after = *after[:2], whole(shape[2], "height"), whole(shape[3], "width")
        return after

    def _concatenated(self, args: Any, shape: Sequence[int]) -> Dimensions:
        tensors = [tensor for tensor in args[0] if tensor.dim() == len(shape)]
        dimension = _dimension(args, 1, len(shape))
        each = [self.dimensions_of(tensor) for tensor in tensors]
        after = [next((d[i] for d in each if shows_positions(d[i])), each[0][i]) for i in range(len(shape))]
        after[dimension] = joined_parts([d[dimension] for d in each])
        return _fitting(tuple(after), shape)


def _dimension(args: Any, index: int, count: int) -> int:
    """The dimension that argument `index` names; the first one by default."""
    return (args[index] if len(args) > index else 0) % count


def _fitting(dimensions: Dimensions, shape: Sequence[int]) -> Dimensions:
    """The dimensions, or unknown ones where they are not of this shape."""
    return dimensions if tuple(map(places, dimensions)) == tuple(shape) else unknown(shape)


def _like_operands(operands: list[Any], shape: Sequence[int]) -> Dimensions:
    """Dimensions of the same size stay, from the operand that shows most; sizes of maps may change."""
    same = [known for size, known in operands if len(size) == len(shape)]
    if not same:
        return unknown(shape)
    after: list[Dimension] = []
    for i, size in enumerate(shape):
        equal = [known[i] for known in same if places(known[i]) == size]
        after.append(next(filter(shows_positions, equal), equal[0] if equal else resized(same[0][i], size)))
    return tuple(after)


def _product(left: Dimensions | None, right: Dimensions | None, shape: Sequence[int]) -> Dimensions:
    """Rows of the left factor and columns of the right one; those of a weight are new."""
    rows = left[:-1] if left else (*right[:-2], whole(shape[-2])) if right else unknown(shape[:-1])
    return _fitting((*rows, right[-1] if right else whole(shape[-1])), shape)


def _permuted(args: Any, before: Dimensions, shape: Sequence[int]) -> Dimensions:
    return tuple(before[i] for i in args[1])


def _transposed(args: Any, before: Dimensions, shape: Sequence[int]) -> Dimensions:
    after = list(before)
    one, other = (args[1], args[2]) if len(args) > 2 else (0, -1)
    after[one], after[other] = before[other], before[one]
    return tuple(after)


def _viewed(args: Any, before: Dimensions, shape: Sequence[int]) -> Dimensions:
    return viewed(before, shape)


def _expanded(args: Any, before: Dimensions, shape: Sequence[int]) -> Dimensions:
    added = len(shape) - len(before)
    return *unknown(shape[:added]), *(
        d if places(d) == n else whole(n) for d, n in zip(before, shape[added:], strict=True)
    )


def _removed(args: Any, before: Dimensions, shape: Sequence[int]) -> Dimensions:
    """After dimensions were reduced or selected: `args[1]`, or all."""
    named = args[1] if len(args) > 1 else None
    dimensions = range(len(before)) if named in (None, []) else [named] if isinstance(named, int) else named
    gone = {dimension % len(before) for dimension in dimensions}
    if len(shape) == len(before):
        return tuple(() if i in gone else dimension for i, dimension in enumerate(before))
    return tuple(dimension for i, dimension in enumerate(before) if i not in gone)


def _unbound(args: Any, before: Dimensions, shape: Sequence[int]) -> Dimensions:
    return _removed((args[0], _dimension(args, 1, len(before))), before, shape)


def _stacked(args: Any, before: Dimensions, shape: Sequence[int]) -> Dimensions:
    dimension = _dimension(args, 1, len(shape))
    return *before[:dimension], whole(shape[dimension]), *before[dimension:]


def _sliced(args: Any, before: Dimensions, shape: Sequence[int]) -> Dimensions:
    dimension = _dimension(args, 1, len(before))
    size = places(before[dimension])
    start, stop, step = slice(*((*args[2:], None, None, None)[:3])).indices(size)
    after = sliced(before[dimension], start, stop, step, shape[dimension])
    return *before[:dimension], after, *before[dimension + 1 :]


def _picked(args: Any, before: Dimensions, shape: Sequence[int]) -> Dimensions:
    """After places were chosen by an index: those dimensions are in another order."""
    if len(shape) != len(before):
        return unknown(shape)
    chosen = args[1] if isinstance(args[1], list | tuple) else [None] * (args[1] % len(before)) + [args[2]]
    is_chosen = [i < len(chosen) and chosen[i] is not None for i in range(len(before))]
    return tuple(whole(size) if gone else d for gone, d, size in zip(is_chosen, before, shape, strict=True))


def _reordered(args: Any, before: Dimensions, shape: Sequence[int]) -> Dimensions:
    return unknown(shape)


_SPLITS = ("split", "split_with_sizes", "split_copy", "split_with_sizes_copy")

_Move = Callable[[Any, Dimensions, Sequence[int]], Dimensions]

_MOVES: dict[str, _Move] = {
    "permute": _permuted,
    **dict.fromkeys(("transpose", "t", "transpose_"), _transposed),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), _viewed),
    **dict.fromkeys(("unsqueeze", "unsqueeze_", "squeeze", "squeeze_"), _viewed),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std"), _removed),
    **dict.fromkeys(("select", "unbind"), _unbound),
    "expand": _expanded,
    "stack": _stacked,
    "slice": _sliced,
    **dict.fromkeys(("index", "index_select"), _picked),
    **dict.fromkeys(("gather", "sort", "topk", "flip", "take_along_dim", "scatter"), _reordered),
}
"""Names of operators that move dimensions, to where they move them."""

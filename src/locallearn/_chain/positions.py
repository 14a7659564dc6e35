"""Positions of an image in the dimensions of a tensor: which of them counts rows, which columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod


@dataclass(eq=False)
class Axis:
    """What a dimension counts. Each axis is its own.

    Attributes:
        size: number of places.
        name: "height" or "width" of a map; "" for all else.
        parts: of a concatenation, the dimensions in order.
    """

    size: int
    name: str = ""
    parts: tuple[Dimension, ...] = ()


@dataclass(frozen=True)
class Digits:
    """Part of an axis: `size` places, each `step` apart. A window of four rows is `Digits(rows, 4, 1)`."""

    axis: Axis = field(repr=False)
    size: int
    step: int = 1


Dimension = tuple[Digits, ...]
"""Parts of axes, outermost first; a dimension of one place has none."""

Dimensions = tuple[Dimension, ...]


def whole(size: int, name: str = "", parts: tuple[Dimension, ...] = ()) -> Dimension:
    """A dimension that is a new axis."""
    return (Digits(Axis(size, name, parts), size),) if size > 1 else ()


def unknown(shape: Sequence[int]) -> Dimensions:
    """Dimensions of which nothing is known."""
    return tuple(whole(size) for size in shape)


def places(dimension: Dimension) -> int:
    """The size of a dimension."""
    return prod(digits.size for digits in dimension)


def is_whole(dimension: Dimension, name: str) -> bool:
    """Whether a dimension runs along one axis of this name, from end to end and in order.

    Patches of it count too: their own places are then in another dimension, with the channels for instance.
    """
    if len(dimension) != 1:
        return False
    digits = dimension[0]
    return digits.axis.name == name and digits.size * digits.step == digits.axis.size


def shows_positions(dimension: Dimension) -> bool:
    """Whether any part of it is of a map's height or width."""
    return any(digits.axis.name or any(map(shows_positions, digits.axis.parts)) for digits in dimension)


def parts_of(dimension: Dimension) -> tuple[Dimension, ...]:
    """The dimensions of which it is the concatenation."""
    if len(dimension) == 1 and dimension[0].size == dimension[0].axis.size and dimension[0].axis.parts:
        return dimension[0].axis.parts
    return (dimension,)


def joined_parts(parts: Sequence[Dimension]) -> Dimension:
    """The concatenation of dimensions."""
    flat = [inner for part in parts for inner in parts_of(part)]
    return flat[0] if len(flat) == 1 else whole(sum(map(places, flat)), parts=tuple(flat))


def resized(dimension: Dimension, size: int) -> Dimension:
    """A dimension of another size, after a pool for instance: a map's height stays one."""
    name = dimension[0].axis.name if dimension and is_whole(dimension, dimension[0].axis.name) else ""
    return whole(size, name)


def sliced(dimension: Dimension, start: int, stop: int, step: int, size: int) -> Dimension:
    """The places from `start` to before `stop`; parts of a concatenation stay what they are."""
    parts = parts_of(dimension)
    if len(parts) == 1 or step != 1:
        return resized(dimension, size)
    taken: list[Dimension] = []
    begin = 0
    for part in parts:
        end = begin + places(part)
        low, high = max(start, begin), min(stop, end)
        if low < high:
            taken.append(part if high - low == end - begin else whole(high - low))
        begin = end
    return joined_parts(taken) if taken else ()


def viewed(before: Dimensions, shape: Sequence[int]) -> Dimensions:
    """The dimensions after a view: parts of axes are divided, and joined again where they follow one another."""
    left = [digits for dimension in before for digits in dimension]
    after: list[Dimension] = []
    for size in shape:
        dimension: list[Digits] = []
        while size > 1:
            if not left:
                return unknown(shape)
            digits = left.pop(0)
            if digits.size > size:
                if digits.size % size:
                    return unknown(shape)
                inner = digits.size // size
                left.insert(0, Digits(digits.axis, inner, digits.step))
                digits = Digits(digits.axis, size, digits.step * inner)
            if size % digits.size:
                return unknown(shape)
            size //= digits.size
            dimension.append(digits)
        after.append(_merged(dimension))
    return tuple(after)


def _merged(dimension: Sequence[Digits]) -> Dimension:
    merged: list[Digits] = []
    for digits in dimension:
        last = merged[-1] if merged else None
        if last and last.axis is digits.axis and last.step == digits.size * digits.step:
            merged[-1] = Digits(digits.axis, last.size * digits.size, digits.step)
        else:
            merged.append(digits)
    return tuple(merged)

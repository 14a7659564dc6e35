"""The layout of features between layers, and their form for auxiliary networks: maps, that may carry prefix tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""Channels, height, width of one image's features; a vector of n values counts as (n, 1, 1)."""


class Kind(Enum):
    """Order of a feature's dimensions."""

    MAP = "(batch, channels, height, width)"
    VECTOR = "(batch, channels)"
    TOKENS = "(batch, tokens, channels)"
    CHANNELS_LAST = "(batch, height, width, channels)"


@dataclass(frozen=True)
class Layout:
    """The layout of a layer's output, and its conversion to a map and back.

    Tokens become a map by their grid. Prefix tokens (e.g. the class token) have no position; their mean is added
    everywhere, so heads see them and they get gradients. Vectors stay vectors.

    For copies of layers the map carries its prefix tokens: rows above it, filled up with zeros from the left, so that
    its cells in order are the tokens.

    Attributes:
        kind: order of the dimensions.
        shape: channels, height, width of the map.
        prefix: tokens before the grid.
        no_map: why the features are no map, or "". Their shape is then that of their places, in any order.
    """

    kind: Kind
    shape: Shape
    prefix: int = 0
    no_map: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether features are a map or a vector, so that nothing is converted."""
        return self.kind in (Kind.MAP, Kind.VECTOR)

    def to_map(self, features: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The features as a map: of this layout's height and width, or of `size`."""
        if self.is_plain:
            return features
        if self.kind is Kind.CHANNELS_LAST:
            return features.permute(0, 3, 1, 2)
        height, width = self.shape[1:] if size is None else size
        prefix = features.shape[1] - height * width
        maps = features[:, prefix:].transpose(1, 2).unflatten(2, (height, width))
        return maps + features[:, :prefix].mean(1)[:, :, None, None] if prefix else maps

    def to_carrying_map(self, features: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The features as a map that carries the prefix tokens."""
        if not self.prefix:
            return self.to_map(features, size)
        height, width = self.shape[1:] if size is None else size
        filled = F.pad(features, (0, 0, -self.prefix % width, 0)).transpose(1, 2)
        return filled.unflatten(2, (height + prefix_rows(self.prefix, width), width))

    def from_carrying_map(self, maps: Tensor) -> Tensor:
        """A map that carries the prefix tokens, in this layout."""
        if self.is_plain:
            return maps
        if self.kind is Kind.CHANNELS_LAST:
            return maps.permute(0, 2, 3, 1)
        return maps.flatten(2).transpose(1, 2)[:, -self.prefix % maps.shape[3] :]


def prefix_rows(prefix: int, width: int) -> int:
    """Rows above a map of this width that carry `prefix` tokens."""
    return -(-prefix // width)


def carrying_shape(shape: Shape, prefix: int) -> Shape:
    """The shape of a map that carries `prefix` tokens."""
    channels, height, width = shape
    return channels, height + prefix_rows(prefix, width), width


def divided(maps: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """A map that carries `prefix` tokens as these, (batch, channels, prefix), and the map alone."""
    rows = prefix_rows(prefix, maps.shape[3])
    return maps[:, :, :rows].flatten(2)[:, :, -prefix % maps.shape[3] :], maps[:, :, rows:]


def joined(prefix: Tensor, maps: Tensor) -> Tensor:
    """The map that carries these tokens; the inverse of `divided`."""
    width = maps.shape[3]
    filled = F.pad(prefix, (-prefix.shape[2] % width, 0))
    return torch.cat([filled.unflatten(2, (-1, width)), maps], 2)


def carry(features: Tensor, prefix: int, wanted: int) -> Tensor:
    """Features that carry `prefix` tokens, for what takes `wanted`.

    Where the numbers differ, the mean of the tokens is added everywhere, and each of the others is the mean of the map.
    """
    if prefix == wanted:
        return features
    if prefix:
        tokens, maps = divided(features, prefix)
        features = maps + tokens.mean(2)[:, :, None, None]
    if wanted:
        features = joined(features.mean((2, 3))[:, :, None].expand(-1, -1, wanted), features)
    return features


class Carry(nn.Module):
    """`carry`, for what takes no tokens, as a layer."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        return carry(x, self.prefix, 0)


class OnMaps(nn.Module):
    """A copy of a backbone's layer that takes and returns maps, whatever the layout of the original.

    Its output carries the prefix tokens that the original passes on.

    Args:
        layer: the layer.
        before, after: layouts of the original's input and output; maps may be smaller, patches for instance.
        prefix: tokens that its input carries.
    """

    def __init__(self, layer: nn.Module, before: Layout, after: Layout, *, prefix: int = 0) -> None:
        super().__init__()
        self.layer, self.before, self.after, self.prefix = layer, before, after, prefix

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] - prefix_rows(self.prefix, x.shape[3]), x.shape[3]
        output = self.layer(self.before.from_carrying_map(carry(x, self.prefix, self.before.prefix)))
        sides = zip((height, width), self.before.shape[1:], self.after.shape[1:], strict=True)
        return self.after.to_carrying_map(output, [-(-side * new // old) for side, old, new in sides])


MAP = Layout(Kind.MAP, (1, 1, 1))
"""A layout for any map."""

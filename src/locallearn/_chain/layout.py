"""The layout of features between layers, and their form for auxiliary networks: maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import log

import torch
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

    Attributes:
        kind: order of the dimensions.
        shape: channels, height, width of the map.
        prefix: tokens before the grid.
    """

    kind: Kind
    shape: Shape
    prefix: int = 0

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

    def from_map(self, maps: Tensor) -> Tensor:
        """A map in this layout, without prefix tokens."""
        if self.is_plain:
            return maps
        return maps.permute(0, 2, 3, 1) if self.kind is Kind.CHANNELS_LAST else maps.flatten(2).transpose(1, 2)

    def from_map_with_prefix(self, maps: Tensor) -> Tensor:
        """A map as tokens after prefix tokens, each of these the mean of all positions."""
        tokens = self.from_map(maps)
        return torch.cat([tokens.mean(1, keepdim=True).expand(-1, self.prefix, -1), tokens], 1)


class OnMaps(nn.Module):
    """A copy of a backbone's layer that takes and returns maps, whatever the layout of the original.

    Args:
        layer: the layer.
        before, after: layouts of the original's input and output; maps may be smaller, patches for instance.
        needs_prefix: whether the layer takes no tokens without the prefix tokens before them.
    """

    def __init__(self, layer: nn.Module, before: Layout, after: Layout, *, needs_prefix: bool = False) -> None:
        super().__init__()
        self.layer, self.before, self.after, self.needs_prefix = layer, before, after, needs_prefix

    def forward(self, x: Tensor) -> Tensor:
        output = self.layer(self.before.from_map_with_prefix(x) if self.needs_prefix else self.before.from_map(x))
        sides = zip(x.shape[2:], self.before.shape[1:], self.after.shape[1:], strict=True)
        return self.after.to_map(output, [-(-side * new // old) for side, old, new in sides])


def layout_of(feature: Tensor, image: Shape, before: Layout | None, channels: int | None = None) -> Layout | None:
    """The layout of a layer's output; None for other numbers of dimensions.

    Args:
        feature: (batch, ...).
        image: channels, height, width of the image.
        before: the layout of the layer's input.
        channels: the dimension of its channels. Where it is None, a map with the image's proportions tells.
    """
    shape = tuple(feature.shape[1:])
    if len(shape) == 1:
        return Layout(Kind.VECTOR, (shape[0], 1, 1))
    if len(shape) == 2:
        height, width = _grid(shape[0], image)
        return Layout(Kind.TOKENS, (shape[1], height, width), shape[0] - height * width)
    if len(shape) != 3:
        return None
    if channels == 3 if channels is not None else _looks_channels_last(shape, image, before):
        return Layout(Kind.CHANNELS_LAST, (shape[2], shape[0], shape[1]))
    return Layout(Kind.MAP, (shape[0], shape[1], shape[2]))


def _looks_channels_last(shape: tuple[int, ...], image: Shape, before: Layout | None) -> bool:
    first, last = _distortion(shape[1], shape[2], image), _distortion(shape[0], shape[1], image)
    was_last = before is not None and before.kind is Kind.CHANNELS_LAST
    return last < first or (last == first and was_last)


def _grid(tokens: int, image: Shape) -> tuple[int, int]:
    """Height and width of the largest grid in the image's proportions with at most this many positions."""
    _, height, width = image
    grids = {(side // patch, other // patch) for patch in range(1, max(height, width) + 1)
             for side, other in ((height, width), (height + patch - 1, width + patch - 1))}  # fmt: skip
    fitting = [grid for grid in grids if 0 < grid[0] * grid[1] <= tokens]
    return max(fitting, key=lambda grid: grid[0] * grid[1], default=(tokens, 1))


def _distortion(height: int, width: int, image: Shape) -> float:
    """Distance of a map's proportions from the image's: |log(h / w) - log(H / W)|."""
    return abs(log(height / width) - log(image[1] / image[2]))


MAP = Layout(Kind.MAP, (1, 1, 1))
"""A layout for any map."""

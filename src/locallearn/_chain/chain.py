"""The chain: a backbone seen as layers in order, then a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import fx, nn

from locallearn._chain.layout import Carry, Kind, Layout, OnMaps, Shape as Shape
from locallearn._nn.init import fresh_copy
from locallearn._nn.layer_like import Adapted, NoLayerLikeError, new_layer_like
from locallearn._nn.narrow import narrow_copy, narrow_width
from locallearn._utils.errors import LocalLearnError


class NoMapError(LocalLearnError):
    """A layer passes on features that are no map, where an auxiliary network takes one."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Layers in order, then a classifier.

    The layers hold the backbone's own modules, so nothing is copied and no parameter gets another name.

    Attributes:
        layers: name of each layer to the module that computes it: one tensor in, one tensor out.
        classifier: from the last layer's features to logits of shape (batch, classes).
    """

    layers: Mapping[str, nn.Module]
    classifier: nn.Module


@runtime_checkable
class HasChain(Protocol):
    """A network that defines its layers by a method."""

    def chain(self) -> Chain: ...


@dataclass(frozen=True, kw_only=True)
class TracedChain:
    """A chain with the shapes that pass through it.

    Attributes:
        names, layers: the chain's layers in order.
        classifier: as in `Chain`.
        image_shape: channels, height, width of one image.
        layouts: the layout of each layer's output.
        types: the type of its numbers.
        begins_in_place: for each layer, then for the classifier, whether it writes on its input.
        classes: number of logits.
    """

    names: tuple[str, ...]
    layers: tuple[nn.Module, ...]
    classifier: nn.Module
    image_shape: Shape
    layouts: tuple[Layout, ...]
    types: tuple[torch.dtype, ...]
    begins_in_place: tuple[bool, ...]
    classes: int

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Channels, height, width of each layer's output, seen as a map."""
        return tuple(layout.shape for layout in self.layouts)

    @property
    def vectors(self) -> tuple[bool, ...]:
        """For each layer whether its output is (batch, n)."""
        return tuple(layout.kind is Kind.VECTOR for layout in self.layouts)

    @property
    def repeating(self) -> tuple[str, ...]:
        """Layers in which a module with weights runs several times."""
        return tuple(name for name, layer in zip(self.names, self.layers, strict=True) if _repeats(layer))

    def layout_of_map(self, layer: int) -> Layout:
        """The layout of a layer's output, where a map or a vector is needed; -1 is the image.

        Raises:
            NoMapError: the features are neither.
        """
        layout = self.layouts[layer] if layer >= 0 else Layout(Kind.MAP, self.image_shape)
        if layout.no_map:
            raise NoMapError(
                f"layer {self.names[layer]!r} must pass on a map of the image here, but passes on {layout.no_map}: end"
                " layers elsewhere by layers=[...], or use a rule that works without maps: BP, Checkpoint or Pooling."
            )
        return layout

    def on_maps(self, layer: int, module: nn.Module, *, prefix: int = 0) -> nn.Module:
        """A module like one of the layers, converted to take and return maps.

        Args:
            layer: index of the layer.
            module: the module.
            prefix: tokens that its input carries; its output carries those that the layer passes on.
        """
        before, after = self.layout_of_map(layer - 1), self.layout_of_map(layer)
        if prefix or not (before.is_plain and after.is_plain):
            module = OnMaps(module, before, after, prefix=prefix)
        return _named_copy(module, self.names[layer])

    def new_like(self, layer: int, *, in_channels: int, stride: int, prefix: int = 0, narrow: float = 1.0) -> nn.Module:
        """A newly initialised layer like one of these, with another input width; it takes and returns maps.

        `new_layer_like` builds it, where it knows the layer's type; else it is a copy in `Adapted`. `prefix` is as in
        `on_maps`, and `narrow` the factor of `narrow_copy`.
        """
        before, after, source = self.layout_of_map(layer - 1), self.layout_of_map(layer), self.layers[layer]
        if narrow < 1:
            source = narrow_copy(source, narrow)
        if before.is_plain and after.is_plain:
            try:
                new = new_layer_like(source, in_channels=in_channels, stride=stride)
                return _named_copy(nn.Sequential(Carry(prefix), new) if prefix else new, self.names[layer])
            except NoLayerLikeError:
                if after.kind is Kind.VECTOR and before.kind is not Kind.VECTOR:
                    raise
        is_vector = before.kind is Kind.VECTOR
        halves = before.shape[1] > after.shape[1] or before.shape[2] > after.shape[2]
        pools = stride > 1 and not halves and not is_vector
        parts: list[nn.Module] = []
        if pools:
            parts += [*([Carry(prefix)] if prefix else []), nn.AvgPool2d(2, ceil_mode=True)]
            prefix = 0
        if in_channels != (width := narrow_width(before.shape[0], narrow)):
            parts.append(nn.Linear(in_channels, width) if is_vector else nn.Conv2d(in_channels, width, 1))
        return Adapted(*parts, self.on_maps(layer, fresh_copy(source), prefix=prefix))

    def width(self, layer: int) -> int:
        """Output channels of a layer."""
        return self.shapes[layer][0]


def _repeats(layer: nn.Module) -> bool:
    if isinstance(layer, fx.GraphModule):
        runs = [layer.get_submodule(str(node.target)) for node in layer.graph.nodes if node.op == "call_module"]
    else:
        runs = list(layer._modules.values()) if isinstance(layer, nn.Sequential) else []
    weighted = [id(part) for part in runs if part is not None and any(True for _ in part.parameters())]
    return len(weighted) > len(set(weighted))


COPIED_LAYER = "copied_layer"
"""Attribute of a copy: the name of the layer that it was made of, for errors."""


def _named_copy(module: nn.Module, layer: str) -> nn.Module:
    vars(module)[COPIED_LAYER] = layer
    return module

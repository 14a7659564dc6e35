"""The chain: a backbone seen as layers in order, then a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain as concatenate
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from locallearn import _private
from locallearn._errors import LocalLearnError, reason_of
from locallearn._init import fresh_copy
from locallearn._layout import Kind, Layout, OnMaps, Shape as Shape, layout_of
from locallearn._like import Adapted, NoLayerLikeError, new_layer_like
from locallearn._sequential import split_sequential
from locallearn._traced import traced


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
    """A network that says itself what its layers are."""

    def chain(self) -> Chain: ...


@dataclass(frozen=True, kw_only=True)
class TracedChain:
    """A chain with the shapes that pass through it.

    Attributes:
        names, layers: the chain's layers in order.
        classifier: as in `Chain`.
        image_shape: channels, height, width of one image.
        layouts: the layout of each layer's output.
        begins_in_place: for each layer, and at the end for the classifier, whether it writes on its input.
        classes: number of logits.
    """

    names: tuple[str, ...]
    layers: tuple[nn.Module, ...]
    classifier: nn.Module
    image_shape: Shape
    layouts: tuple[Layout, ...]
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

    def on_maps(self, layer: int, module: nn.Module) -> nn.Module:
        """A module like one of the layers, made to take and to give maps whatever the layer does."""
        before, after = self._before(layer), self.layouts[layer]
        return module if before.is_plain and after.is_plain else OnMaps(module, before, after)

    def new_like(self, layer: int, *, in_channels: int, stride: int) -> nn.Module:
        """A freshly initialised layer like one of these, from maps of another width to maps of this layer's width.

        By `new_layer_like`, where that knows the layer's type; else as `Adapted` says.
        """
        before, after, source = self._before(layer), self.layouts[layer], self.layers[layer]
        if before.is_plain and after.is_plain:
            try:
                return new_layer_like(source, in_channels=in_channels, stride=stride)
            except NoLayerLikeError:
                if after.kind is Kind.VECTOR:
                    raise
        halves = before.shape[1] > after.shape[1] or before.shape[2] > after.shape[2]
        parts: list[nn.Module] = [nn.AvgPool2d(2, ceil_mode=True)] if stride > 1 and not halves else []
        if in_channels != before.shape[0]:
            parts.append(nn.Conv2d(in_channels, before.shape[0], 1))
        return Adapted(*parts, self.on_maps(layer, fresh_copy(source)))

    def _before(self, layer: int) -> Layout:
        """The layout of what a layer takes."""
        return self.layouts[layer - 1] if layer else Layout(Kind.MAP, self.image_shape)

    def width(self, layer: int) -> int:
        """Output channels of a layer."""
        return self.shapes[layer][0]


def chain_of(model: nn.Module, image_shape: Shape, layers: str | Sequence[str] | None = None) -> Chain:
    """See a model as a chain: by its own `chain()` method, as an `nn.Sequential`, or by following its forward code.

    Args:
        model: the network.
        image_shape: channels, height, width of one image.
        layers: modules that each end a layer; then the forward code is followed whatever the model says.

    Raises:
        LocalLearnError: the model is no chain, or some of its parameters belong to no layer.
    """
    by_itself = isinstance(model, HasChain | nn.Sequential) and layers is None
    if not by_itself:
        found, classifier = traced(model, image_shape, layers)
        return _with_layers(model, Chain(layers=found, classifier=classifier))
    if isinstance(model, HasChain):
        chain = model.chain()
    else:
        assert isinstance(model, nn.Sequential)
        parts, classifier = split_sequential(model)
        chain = Chain(layers=parts, classifier=classifier)
    _with_layers(model, chain)
    parts = {f"layer {name!r}": layer for name, layer in chain.layers.items()} | {"the classifier": chain.classifier}
    owned = {id(p) for part in parts.values() for p in part.parameters()}
    if lost := [name for name, parameter in model.named_parameters() if id(parameter) not in owned]:
        raise LocalLearnError(
            f"{type(model).__name__} is no chain of the layers it names: its parameter {lost[0]!r} is in no layer"
            " and not in the classifier. Add the module that uses it to a layer in chain()."
        )
    if not owned:
        raise LocalLearnError(f"{type(model).__name__} has no parameters: nothing to train.")
    trained = {id(parameter) for parameter in model.parameters()}
    for name, part in parts.items():
        if any(id(parameter) not in trained for parameter in part.parameters()):
            raise LocalLearnError(
                f"{name} of {type(model).__name__}.chain() has parameters that are not the network's own: make its"
                " modules in __init__, and only group them in chain()."
            )
    return chain


def _with_layers(model: nn.Module, chain: Chain) -> Chain:
    if not chain.layers:
        raise LocalLearnError(f"{type(model).__name__} has no layer before its classifier: nothing to train locally.")
    return chain


def trace(chain: Chain, image_shape: Shape) -> TracedChain:
    """Follow one image through the chain without computing it.

    Raises:
        LocalLearnError: a layer does not pass one tensor on, or cannot take a feature of the size it gets.
    """
    layouts: list[Layout] = []
    in_place = []
    with _private.fake_mode() as mode, torch.no_grad():
        parts = _private.fake_copy(nn.ModuleList([*chain.layers.values(), chain.classifier]), mode).train()
        reference = next(parts.parameters())
        # two images, for batch normalisation over vectors
        feature = torch.empty((2, *image_shape), device=reference.device, dtype=reference.dtype)
        for name, layer in zip(chain.layers, parts, strict=False):
            version = _private.version_of(feature)
            source, feature = feature, _run(layer, feature, f"layer {name!r}")
            in_place.append(_private.version_of(source) != version)
            layout = layout_of(feature, image_shape, layouts[-1] if layouts else None)
            if layout is None:
                raise LocalLearnError(
                    f"layer {name!r} passes on a tensor of shape {_size(feature)}; a chain passes maps"
                    " (channels, height, width), tokens (tokens, channels) or vectors (channels)."
                )
            layouts.append(layout)
        version = _private.version_of(feature)
        logits = _run(parts[-1], feature, "the classifier")
        in_place.append(_private.version_of(feature) != version)
    if logits.dim() != 2:
        raise LocalLearnError(f"the classifier gives a tensor of shape {_size(logits)} instead of one logit per class.")
    return TracedChain(
        names=tuple(chain.layers),
        layers=tuple(chain.layers.values()),
        classifier=chain.classifier,
        image_shape=image_shape,
        layouts=tuple(layouts),
        begins_in_place=tuple(in_place),
        classes=logits.shape[1],
    )


def refuse_shared_parameters(model: nn.Module, groups: list[list[nn.Module]]) -> None:
    """Refuse a parameter that two local modules would train."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owner: dict[int, int] = {}
    for module, group in enumerate(groups):
        for parameter in concatenate.from_iterable(part.parameters() for part in group):
            if owner.setdefault(id(parameter), module) != module:
                raise LocalLearnError(
                    f"parameter {names[id(parameter)]!r} is shared by local modules {owner[id(parameter)]} and"
                    f" {module}: give each its own copy, or choose modules so that one holds both uses."
                )


def _run(layer: nn.Module, feature: torch.Tensor, name: str) -> torch.Tensor:
    kind = type(layer[0] if isinstance(layer, nn.Sequential) and len(layer) == 1 else layer).__name__
    try:
        output = layer(feature)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise LocalLearnError(
            f"{name} ({kind}) cannot take a feature of shape {_size(feature)}: {reason_of(error)}."
            " Is input_shape right, and the image large enough for the network?"
        ) from error
    if not isinstance(output, torch.Tensor):
        raise LocalLearnError(
            f"the network is no chain at {name}: {kind} returns a {type(output).__name__}, not one"
            " tensor. Wrap it in a module that returns the tensor the next layer needs."
        )
    if output.numel() == 0:
        raise LocalLearnError(
            f"{name} leaves nothing of a feature of shape {_size(feature)}: the image size is too small for the"
            " network."
        )
    return output


def _size(feature: torch.Tensor) -> str:
    return "x".join(map(str, feature.shape[1:])) or "no values"

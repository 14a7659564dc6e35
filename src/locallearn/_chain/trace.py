"""A chain with the shapes that pass between its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from locallearn._chain.chain import Chain, TracedChain
from locallearn._chain.channel_tracker import ChannelTracker
from locallearn._chain.layout import Layout, Shape
from locallearn._chain.layout_detection import layout_after
from locallearn._chain.position_tracker import PositionTracker
from locallearn._chain.structure import Remembered
from locallearn._fx.tracer import BATCHES, may_be_the_size
from locallearn._nn.outputs import MainOutput, main_output
from locallearn._torch import private_api
from locallearn._utils.errors import LocalLearnError, reason_of


def trace(chain: Chain, image_shape: Shape) -> TracedChain:
    """Run the chain on fake tensors, for the shapes between its layers; chains of libraries' parts once in a process.

    Raises:
        LocalLearnError: a layer does not pass one tensor on, or cannot take a feature of the size it gets.
    """
    parts = nn.ModuleList([*chain.layers.values(), chain.classifier])
    device = next(parts.parameters()).device
    run = partial(_traced, tuple(chain.layers), parts, image_shape)
    traced = _TRACED.find(parts, device, image_shape, compute=run)
    return TracedChain(
        names=tuple(chain.layers),
        layers=tuple(chain.layers.values()),
        classifier=nn.Sequential(chain.classifier, MainOutput()) if traced.several_outputs else chain.classifier,
        image_shape=image_shape,
        layouts=traced.layouts,
        types=traced.types,
        begins_in_place=traced.begins_in_place,
        classes=traced.classes,
    )


@dataclass(frozen=True, kw_only=True)
class _Traced:
    """What fake tensors tell of a chain; attributes are as in `TracedChain`.

    Attributes:
        several_outputs: whether the classifier has other outputs beside the logits.
    """

    layouts: tuple[Layout, ...]
    types: tuple[torch.dtype, ...]
    begins_in_place: tuple[bool, ...]
    classes: int
    several_outputs: bool


_TRACED: Remembered[_Traced] = Remembered()


def _traced(names: Sequence[str], real: nn.ModuleList, image_shape: Shape) -> _Traced:
    layouts: list[Layout] = []
    types: list[torch.dtype] = []
    in_place: list[bool] = []
    channels = ChannelTracker()
    with private_api.fake_mode() as mode, torch.no_grad():
        parts = private_api.fake_copy(real, mode).train()
        reference = next(parts.parameters())
        like = {"device": reference.device, "dtype": reference.dtype}
        feature, other = (torch.empty((batch, *image_shape), **like) for batch in BATCHES)
        channels.mark(feature, 1)
        positions = PositionTracker(feature)
        for name, layer in zip(names, parts, strict=False):
            version = private_api.version_of(feature)
            with channels, positions:
                source, feature = feature, _run(layer, feature, f"layer {name!r}")
            in_place.append(private_api.version_of(source) != version)
            other = _run(layer, other, f"layer {name!r}")
            types.append(feature.dtype)
            where = channels.dimension_of(feature), positions.dimensions_of(feature)
            layouts.append(layout_after(name, (feature, other), *where))
        version = private_api.version_of(feature)
        outputs = _output(parts[-1], feature, "the classifier")
        logits = _refuse_no_tensor(parts[-1], main_output(outputs), feature, "the classifier")
        in_place.append(private_api.version_of(feature) != version)
    if logits.dim() != 2:
        raise LocalLearnError(f"the classifier gives a tensor of shape {_size(logits)} instead of one logit per class.")
    return _Traced(
        layouts=tuple(layouts),
        types=tuple(types),
        begins_in_place=tuple(in_place),
        classes=logits.shape[1],
        several_outputs=logits is not outputs,
    )


def _run(layer: nn.Module, feature: torch.Tensor, name: str) -> torch.Tensor:
    return _refuse_no_tensor(layer, _output(layer, feature, name), feature, name)


def _output(layer: nn.Module, feature: torch.Tensor, name: str) -> object:
    try:
        return layer(feature)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        asks = " Is input_shape right, and the image large enough for the network?" if may_be_the_size(error) else ""
        raise LocalLearnError(
            f"{name} ({_kind(layer)}) cannot take a feature of shape {_size(feature)}: {reason_of(error)}.{asks}"
        ) from error


def _refuse_no_tensor(layer: nn.Module, output: object, feature: torch.Tensor, name: str) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise LocalLearnError(
            f"the network is no chain at {name}: {_kind(layer)} returns a {type(output).__name__}, not one"
            " tensor. Wrap it in a module that returns the tensor the next layer needs."
        )
    if output.numel() == 0:
        raise LocalLearnError(
            f"{name} leaves nothing of a feature of shape {_size(feature)}: the image size is too small for the"
            " network."
        )
    return output


def _kind(layer: nn.Module) -> str:
    return type(layer[0] if isinstance(layer, nn.Sequential) and len(layer) == 1 else layer).__name__


def _size(feature: torch.Tensor) -> str:
    return "x".join(map(str, feature.shape[1:])) or "no values"

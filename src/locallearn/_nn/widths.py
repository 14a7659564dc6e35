"""Other widths for a layer, which keeps its class and all else: kernel, padding, stride, activation."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor, nn

from locallearn._utils.errors import LocalLearnError

Norm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm


class NoLayerLikeError(LocalLearnError):
    """No layer of this type can be built anew with other widths."""


def set_width(layer: nn.Conv2d | nn.Linear, inputs: int, outputs: int, *, groups: int = 1) -> None:
    """Give a layer new weights of other widths.

    Args:
        layer: a convolution or linear layer, which is changed.
        inputs: channels or features before it.
        outputs: channels or features after it.
        groups: of a convolution.

    Raises:
        NoLayerLikeError: it has other weights besides.
    """
    if isinstance(layer, nn.Conv2d):
        layer.in_channels, layer.out_channels, layer.groups = inputs, outputs, groups
        weight = layer.weight.new_empty(outputs, inputs // groups, *layer.kernel_size)
    else:
        layer.in_features, layer.out_features = inputs, outputs
        weight = layer.weight.new_empty(outputs, inputs)
    _replace(layer, weight=weight, bias=weight.new_empty(outputs))


def set_channels(norm: Norm, channels: int) -> None:
    """Give a normalisation first weights and statistics of another number of channels.

    Raises:
        NoLayerLikeError: it has other weights besides.
    """
    name = "num_channels" if isinstance(norm, nn.GroupNorm) else "num_features"
    setattr(norm, name, channels)
    tensors = {**dict(norm.named_parameters(recurse=False)), **dict(norm.named_buffers(recurse=False))}
    _replace(norm, **{name: value.new_empty(channels) for name, value in tensors.items() if value.dim()})


def _replace(layer: nn.Conv2d | nn.Linear | Norm, **tensors: Tensor) -> None:
    """Put tensors in the place of a layer's own, and draw first values; it has no others."""
    own = {**layer._parameters, **layer._buffers}
    sizes = {name for name, value in own.items() if value is not None and value.dim()}
    if not sizes <= {"weight", "bias", "running_mean", "running_var"} or "weight" not in own:
        raise NoLayerLikeError(f"a {type(layer).__name__} has weights whose widths are not known.")
    for name in sizes:
        setattr(layer, name, nn.Parameter(tensors[name]) if name in layer._parameters else tensors[name])
    layer.reset_parameters()

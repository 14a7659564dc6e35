"""A new layer like another one, for auxiliary networks made of the backbone's kinds of layer."""

from __future__ import annotations

import copy
from functools import singledispatch

from torch import nn

from locallearn._errors import LocalLearnError
from locallearn._sequential import NORMS, POOLS


@singledispatch
def new_layer_like(layer: nn.Module, *, in_channels: int, stride: int) -> nn.Module:
    """A freshly initialised layer of the same kind and output width.

    Register a function for your own type with `@locallearn.new_layer_like.register`.

    Args:
        layer: the layer to imitate; it is not changed and lends no weights.
        in_channels: input width of the new layer.
        stride: 1, or 2 where the new layer is to halve height and width.
    """
    raise LocalLearnError(
        f"cannot build a new layer like a {type(layer).__name__} yet: register a function for it with"
        " @locallearn.new_layer_like.register, or choose a rule that builds no such layers, DGL for one."
    )


@new_layer_like.register
def _(layer: nn.Conv2d, *, in_channels: int, stride: int) -> nn.Conv2d:
    if layer.groups != 1:
        raise LocalLearnError(f"cannot build a new layer like a convolution with {layer.groups} groups yet.")
    height, width = layer.kernel_size
    padding = (height // 2, width // 2)
    return nn.Conv2d(in_channels, layer.out_channels, (height, width), stride, padding, bias=layer.bias is not None)


@new_layer_like.register
def _(layer: nn.Linear, *, in_channels: int, stride: int) -> nn.Linear:
    return nn.Linear(in_channels, layer.out_features, bias=layer.bias is not None)


@new_layer_like.register
def _(layer: nn.Sequential, *, in_channels: int, stride: int) -> nn.Sequential:
    """The first child with weights takes the new input; poolings are left out, since the stride stands for them."""
    children, taken = [], False
    for child in layer:
        if isinstance(child, (*POOLS, nn.Flatten)):
            continue
        if isinstance(child, (*NORMS, nn.PReLU)) or not any(True for _ in child.parameters()):
            child = copy.deepcopy(child)
            if callable(reset := getattr(child, "reset_parameters", None)):
                reset()
        elif taken:
            raise LocalLearnError(
                f"cannot build a new layer like an nn.Sequential with several {type(child).__name__} yet:"
                " register a type of your own with @locallearn.new_layer_like.register."
            )
        else:
            child, taken = new_layer_like(child, in_channels=in_channels, stride=stride), True
        children.append(child)
    return nn.Sequential(*children)

"""A new layer like another one, for auxiliary networks made of the backbone's kinds of layer."""

from __future__ import annotations

import sys
from functools import singledispatch
from importlib import import_module

from torch import nn

from locallearn._nn.init import fresh_copy, he_normal_
from locallearn._nn.layer_types import NORMS, POOLS
from locallearn._nn.widths import NoLayerLikeError, set_width
from locallearn._torch.deep_copy import deep_copy


@singledispatch
def new_layer_like(layer: nn.Module, *, in_channels: int, stride: int) -> nn.Module:
    """A freshly initialised layer of the same kind and output width, with another input width and stride.

    There is one for convolutions, linear layers, sequences with one of them, and the convolutional blocks of
    torchvision and timm: basic and bottleneck residual blocks, inverted residuals, RegNet's. Register a function for
    your own type with `@locallearn.new_layer_like.register`. Auxiliary networks that need a layer of any other type
    copy it, draw new weights, and adapt the input by average pooling and a layer of size 1 (`Adapted`).

    Args:
        layer: the layer to imitate; it is not changed and lends no weights.
        in_channels: input width of the new layer.
        stride: 1, or 2 where the new layer is to halve height and width.

    Raises:
        NoLayerLikeError: there is no function for this type.
    """
    for library in ("torchvision", "timm"):
        if library in sys.modules:
            import_module(f"locallearn._nn.layer_like_{library}")
    build = new_layer_like.dispatch(type(layer))
    if build is not new_layer_like.dispatch(object):
        return build(layer, in_channels=in_channels, stride=stride)
    raise NoLayerLikeError(
        f"cannot build a new layer like a {type(layer).__name__}: register a function for it with"
        " @locallearn.new_layer_like.register."
    )


@new_layer_like.register
def _(layer: nn.Conv2d, *, in_channels: int, stride: int) -> nn.Conv2d:
    if layer.groups != 1:
        raise NoLayerLikeError(f"cannot build a new layer like a convolution with {layer.groups} groups.")
    height, width = layer.kernel_size
    padding = ((height - 1) // 2, (width - 1) // 2)
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
            if not taken and any(in_channels not in weight.shape for weight in child.parameters()):
                raise NoLayerLikeError(
                    f"a {type(child).__name__} before the first weights of an nn.Sequential is bound."
                )
            child = deep_copy(child)
            if callable(reset := getattr(child, "reset_parameters", None)):
                reset()
        elif taken:
            raise NoLayerLikeError(
                f"cannot build a new layer like an nn.Sequential with several {type(child).__name__}."
            )
        else:
            child, taken = new_layer_like(child, in_channels=in_channels, stride=stride), True
        children.append(child)
    return nn.Sequential(*children)


def block_like(layer: nn.Module, *, in_channels: int, stride: int, shortcut: str = "", flag: str = "") -> nn.Module:
    """A new block like another one, made of convolutions: a copy with first weights of its own, rewired at its entry.

    The first convolution takes the new width, and the first one that looks around takes the stride; inner widths stay.

    Args:
        layer: the block.
        in_channels: as in `new_layer_like`.
        stride: as in `new_layer_like`.
        shortcut: name of the projection beside the convolutions, None in a block that needs none; 1x1 convolution and
            normalisation are put there where width or stride change.
        flag: name of the attribute that says whether the input is added to the output.

    Raises:
        NoLayerLikeError: the first convolution has groups, so that its width is bound to what follows.
    """
    new = fresh_copy(layer)
    convolutions = [
        part
        for name, part in new.named_modules()
        if isinstance(part, nn.Conv2d) and not (shortcut and name.startswith(f"{shortcut}."))
    ]
    first, out_channels = convolutions[0], convolutions[-1].out_channels
    looking = next((part for part in convolutions if max(part.kernel_size) > 1), first)
    looking.stride = (stride, stride)
    if in_channels != first.in_channels:
        if first.groups != 1:
            raise NoLayerLikeError(f"the first convolution of a {type(layer).__name__} has {first.groups} groups.")
        set_width(first, in_channels, first.out_channels)
    is_same = stride == 1 and in_channels == out_channels
    if shortcut:
        norms = [part for part in new.modules() if isinstance(part, NORMS)]
        norm = fresh_copy(norms[-1])
        projection = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), norm)
        setattr(new, shortcut, None if is_same else projection)
    if flag:
        setattr(new, flag, is_same)
    he_normal_(new)
    return new


class Adapted(nn.Sequential):
    """A copy of a layer of any type with first weights of its own, its input brought to what the layer takes.

    Average pooling 2x2 where height and width are to be halved and the layer does not do so itself; 1x1 convolution,
    or a linear layer for vectors, where the width is another one.
    """

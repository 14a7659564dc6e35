"""Copies of convolutional layers with a fraction of their channels."""

from __future__ import annotations

from typing import Any

from torch import nn

from locallearn._nn.init import fresh_copy, he_normal_
from locallearn._nn.layer_like import NoLayerLikeError


def narrow_width(channels: int, factor: float) -> int:
    """`channels` times `factor`: the nearest whole number, at least 1."""
    return max(1, round(channels * factor))


def narrow_copy(layer: nn.Module, factor: float) -> nn.Module:
    """A newly initialised copy whose convolutions, linear layers and norms have `factor` times the channels.

    Its input and output are narrower too. Groups stay as many; a depthwise convolution stays depthwise.

    Args:
        layer: a convolution, linear layer or norm, or any module whose weights are all in such parts.
        factor: above 0, at most 1.

    Raises:
        NoLayerLikeError: another part has weights or buffers, or groups do not divide the new number of channels.
    """
    new = fresh_copy(layer)
    for name, part in [*new.named_modules()]:
        if (narrow := _narrow(part, factor)) is part:
            continue
        if not name:
            new = narrow
        else:
            new.set_submodule(name, narrow)
    he_normal_(new)
    return new


def _narrow(part: nn.Module, factor: float) -> nn.Module:
    """A narrower part in place of one that has weights or statistics of channels; others as they are."""

    def width(channels: int, groups: int = 1) -> int:
        new = narrow_width(channels, factor)
        if new % groups:
            raise NoLayerLikeError(
                f"a {type(part).__name__} of {groups} groups and {channels} channels cannot have {new} channels."
            )
        return new

    match part:
        case nn.Conv2d(in_channels=before, out_channels=after, groups=groups) if type(part) is nn.Conv2d:
            if groups == before > 1:
                groups = width(before)
                before, after = groups, groups * (after // before)
            else:
                before, after = width(before, groups), width(after, groups)
            size: Any = (part.kernel_size, part.stride, part.padding, part.dilation)
            has_bias, mode = part.bias is not None, part.padding_mode
            return nn.Conv2d(before, after, *size, groups=groups, bias=has_bias, padding_mode=mode)
        case nn.Linear() if type(part) is nn.Linear:
            return nn.Linear(width(part.in_features), width(part.out_features), bias=part.bias is not None)
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.SyncBatchNorm():
            statistics = part.eps, part.momentum, part.affine, part.track_running_stats
            return type(part)(width(part.num_features), *statistics)
        case nn.GroupNorm():
            return nn.GroupNorm(part.num_groups, width(part.num_channels, part.num_groups), part.eps, part.affine)
        case _ if any(True for tensors in (part.parameters, part.buffers) for _ in tensors(recurse=False)):
            raise NoLayerLikeError(f"a {type(part).__name__} inside it cannot be made narrower.")
    return part

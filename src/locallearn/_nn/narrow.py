"""Copies of convolutional layers with a fraction of their channels."""

from __future__ import annotations

from torch import nn

from locallearn._nn.init import fresh_copy, he_normal_
from locallearn._nn.widths import NoLayerLikeError, set_channels, set_width


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
    for part in new.modules():
        _narrow(part, factor)
    he_normal_(new)
    return new


def _narrow(part: nn.Module, factor: float) -> None:
    """Make a part narrower that has weights or statistics of channels."""

    def width(channels: int, groups: int = 1) -> int:
        new = narrow_width(channels, factor)
        if new % groups:
            raise NoLayerLikeError(
                f"a {type(part).__name__} of {groups} groups and {channels} channels cannot have {new} channels."
            )
        return new

    match part:
        case nn.Conv2d(in_channels=inputs, out_channels=outputs, groups=groups) if groups == inputs > 1:  # depthwise
            set_width(part, width(inputs), width(inputs) * (outputs // inputs), groups=width(inputs))
        case nn.Conv2d(in_channels=inputs, out_channels=outputs, groups=groups):
            set_width(part, width(inputs, groups), width(outputs, groups), groups=groups)
        case nn.Linear(in_features=inputs, out_features=outputs):
            set_width(part, width(inputs), width(outputs))
        case nn.BatchNorm1d(num_features=channels) | nn.BatchNorm2d(num_features=channels):
            set_channels(part, width(channels))
        case nn.GroupNorm(num_channels=channels, num_groups=groups):
            set_channels(part, width(channels, groups))
        case _ if any(True for tensors in (part.parameters, part.buffers) for _ in tensors(recurse=False)):
            raise NoLayerLikeError(f"a {type(part).__name__} inside it cannot be made narrower.")
        case _:
            pass

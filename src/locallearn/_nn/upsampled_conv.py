"""Bilinear upsampling, and a convolution after it, computed at the low resolution."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def upsample(features: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, corners aligned; vectors count as 1 x 1 maps."""
    if features.dim() == 2:
        features = features[:, :, None, None]
    if features.shape[2:] == tuple(size):
        return features
    return F.interpolate(features, tuple(size), mode="bilinear", align_corners=True)


class UpsampledConv(nn.Conv2d):
    """conv3x3 of features upsampled to a size, padded by one, with bias.

    Both are linear, so their order can change: each of the nine taps is a 1x1 convolution of the small features, and
    two matrix products interpolate, shift and add the nine. From 8 x 8 to 32 x 32 that is a seventh of the arithmetic,
    and upsampled features are never stored. Where it saves less than two
    thirds, the plain convolution is faster and is used.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1)

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if features.dim() == 2:
            features = features[:, :, None, None]
        if self.saves_arithmetic(features.shape[2:], size):
            return self._at_low_resolution(features, size)
        return super().forward(upsample(features, size))

    def saves_arithmetic(self, small: Sequence[int], size: Sequence[int]) -> bool:
        """Whether the low resolution takes at most a third of the multiply-accumulates."""
        taps = 9 * self.in_channels * prod(small)
        interpolation = 9 * prod(small) * size[1] + 3 * small[0] * prod(size)
        return 3 * (taps + interpolation) <= 9 * self.in_channels * prod(size)

    def _at_low_resolution(self, features: Tensor, size: Sequence[int]) -> Tensor:
        batch, _, height, width = features.shape
        down, across = _taps(height, size[0], features), _taps(width, size[1], features)
        by_tap = features.permute(0, 2, 3, 1) @ self.weight.permute(1, 2, 3, 0).flatten(1)
        rows = by_tap.view(batch, height, width, 3, -1).transpose(2, 3).reshape(batch * height * 3, width * 3, -1)
        wide = (across @ rows).view(batch, height * 3, -1)
        output = (down @ wide).view(batch, *size, -1).permute(0, 3, 1, 2)
        return output if self.bias is None else output + self.bias[:, None, None]


def _taps(small: int, size: int, like: Tensor) -> Tensor:
    """Rows of the interpolation for the three taps of a kernel: (size, 3 * small), zero beyond the border."""
    rows = F.interpolate(
        torch.eye(small, device=like.device, dtype=like.dtype)[None], size, mode="linear", align_corners=True
    )[0].T
    padded = F.pad(rows, (0, 0, 1, 1))
    return torch.stack([padded[tap : tap + size] for tap in range(3)], dim=2).flatten(1)

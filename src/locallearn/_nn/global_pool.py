"""Average pooling of whole maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class GlobalAverage(nn.Module):
    """The mean of each channel: (batch, channels, height, width) to (batch, channels).

    Its gradient, the same everywhere on a map, takes no memory of the map's size.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if torch.compiler.is_compiling() else _Mean.apply(x)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean((2, 3))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        _, _, height, width = ctx.shape
        return (gradients[0] / (height * width))[:, :, None, None].expand(ctx.shape)

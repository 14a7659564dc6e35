"""How new networks start."""

from __future__ import annotations

from torch import nn


def he_normal_(module: nn.Module) -> None:
    """Draw every convolution from N(0, 2 / (kernel area x output channels)).

    The official code of all systems starts backbones and auxiliary networks so; the rest keeps PyTorch's defaults.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            height, width = part.kernel_size
            nn.init.normal_(part.weight, 0.0, (2 / (height * width * part.out_channels)) ** 0.5)

"""First weights of new networks."""

from __future__ import annotations

from torch import nn

from locallearn._torch.deep_copy import deep_copy


def he_normal_(module: nn.Module) -> None:
    """Draw every convolution from N(0, 2 / (kernel area x output channels)).

    The official code of all systems does so for backbones and auxiliary networks; all else has PyTorch's defaults.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            height, width = part.kernel_size
            nn.init.normal_(part.weight, 0.0, (2 / (height * width * part.out_channels)) ** 0.5)


def fresh_copy(layer: nn.Module) -> nn.Module:
    """A newly initialised copy: parts with a `reset_parameters` method draw new weights, others keep the layer's."""
    new = trainable_copy(layer).cpu()  # so that the random numbers of no other device are drawn
    for part in new.modules():
        for name in ("reset_parameters", "_reset_parameters"):
            if callable(reset := getattr(part, name, None)):
                reset()
    he_normal_(new)
    return new


def trainable_copy(layer: nn.Module) -> nn.Module:
    """A trainable copy with the layer's weights."""
    return deep_copy(layer).requires_grad_()

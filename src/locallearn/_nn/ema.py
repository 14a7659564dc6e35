"""Exponential moving averages of the backbone's layers, for auxiliary networks that look ahead."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from locallearn._utils.errors import LocalLearnError


class EmaCopy(nn.Module):
    """A layer whose weights follow those of another: own <- momentum * own + (1 - momentum) * other.

    Only parameters follow; the running statistics of batch normalisation are its own (official code of MAN).

    Args:
        network: a layer of the same structure, which becomes part of this one. Made by `frozen`, it only follows; with
            parameters of its own, it is trained besides.
        source: the layer to follow. It is not registered here, and never changed.
        momentum: share that stays, from 0 (the source's weights of the last step) to 1 (never moves).
    """

    def __init__(self, network: nn.Module, source: nn.Module, momentum: float) -> None:
        super().__init__()
        self.network = network
        self.sources = (source,)  # in a tuple, so that it is not registered
        self.momentum = momentum

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the weights one step."""
        own = dict(self.network.named_buffers()) | dict(self.network.named_parameters())
        pairs = [(own[name], source) for name, source in self.sources[0].named_parameters()]
        if pairs:
            torch._foreach_lerp_([mine for mine, _ in pairs], [source for _, source in pairs], 1.0 - self.momentum)


def frozen(layer: nn.Module) -> nn.Module:
    """Make buffers of all parameters, in place: no optimizer sees them, and gradients pass through to the input."""
    for part in layer.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return layer


def refuse_momentum(rule: str, momentum: float) -> None:
    """Refuse what is no share."""
    if not 0 <= momentum <= 1:
        raise LocalLearnError(f"{rule}: momentum={momentum} is outside [0, 1].")

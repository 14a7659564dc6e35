"""Exponential moving averages of the backbone's layers, for auxiliary networks that look ahead."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from locallearn._nn.state_copy import WEIGHTS
from locallearn._utils.errors import LocalLearnError


class EmaCopy(nn.Module):
    """A layer with the moving average of another layer's weights: own <- momentum * own + (1 - momentum) * source.

    Only parameters move; the running statistics of batch normalisation are its own (MAN, official code).

    Args:
        network: a layer of the same structure, with the first weights. If frozen (`parameters_to_buffers`), it moves by
            `update` alone; with parameters, it is trained too.
        source: the layer whose weights are averaged. It is not registered here, and never changed.
        momentum: share of the own weights, from 0 (takes the source's weights) to 1 (never moves).
    """

    outside_structure = ("sources",)

    def __init__(self, network: nn.Module, source: nn.Module, momentum: float) -> None:
        super().__init__()
        self.network = network
        self.sources: tuple[nn.Module, ...] = (
            source,
        )  # in a tuple, so that it is not registered; none where `move_towards` is called
        self.momentum = momentum

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def update(self) -> None:
        """Move the weights one step towards the source's."""
        for source in self.sources:
            self.move_towards(dict(source.named_parameters()))

    @torch.no_grad()
    def move_towards(self, weights: Mapping[str, Tensor]) -> None:
        """Move the weights one step towards those of a layer of the same structure."""
        own = dict(self.network.named_buffers()) | dict(self.network.named_parameters())
        pairs = [(own[name], weight) for name, weight in weights.items()]
        if pairs:
            torch._foreach_lerp_([mine for mine, _ in pairs], [source for _, source in pairs], 1.0 - self.momentum)


def parameters_to_buffers(layer: nn.Module) -> nn.Module:
    """Turn all parameters into buffers, in place: no optimizer sees them; gradients still reach the input."""
    for part in layer.modules():
        parameters = list(part.named_parameters(recurse=False))
        for name, parameter in parameters:
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
        setattr(part, WEIGHTS, tuple(name for name, _ in parameters))
    return layer


def refuse_momentum(rule: str, momentum: float) -> None:
    """Refuse a momentum outside [0, 1]."""
    if not 0 <= momentum <= 1:
        raise LocalLearnError(f"{rule}: momentum={momentum} is outside [0, 1].")

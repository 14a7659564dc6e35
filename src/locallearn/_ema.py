"""Exponential moving averages of the backbone's layers, for auxiliary networks that look ahead."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from locallearn._errors import LocalLearnError
from locallearn._init import he_normal_


class Follower(nn.Module):
    """A copy of a layer whose weights follow the layer's own: copy <- momentum * copy + (1 - momentum) * layer.

    Its weights are buffers: no optimizer sees them, and gradients pass through to its input. Only parameters follow;
    the running statistics of batch normalisation are the copy's own (official code of MAN).

    Args:
        start: a layer of the same structure that holds the first weights; it becomes part of this module.
        source: the layer to follow. It is not registered here, and never changed.
        momentum: share of the copy that stays, from 0 (the layer's weights of the last step) to 1 (never moves).
    """

    def __init__(self, start: nn.Module, source: nn.Module, momentum: float) -> None:
        super().__init__()
        self.copy = _frozen(start)
        self._source = (source,)
        self.momentum = momentum

    def forward(self, x: Tensor) -> Tensor:
        return self.copy(x)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the weights one step."""
        names = dict(self._source[0].named_parameters())
        copies = [self.copy.get_buffer(name) for name in names]
        torch._foreach_lerp_(copies, [source.detach() for source in names.values()], 1.0 - self.momentum)


def fresh_copy(layer: nn.Module) -> nn.Module:
    """A layer of the same structure, with first weights of its own."""
    new = copy.deepcopy(layer).requires_grad_()
    for part in new.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
    he_normal_(new)
    return new


def trainable_copy(layer: nn.Module) -> nn.Module:
    """A copy with the layer's weights, to be trained by itself."""
    return copy.deepcopy(layer).requires_grad_()


def refuse_momentum(rule: str, momentum: float) -> None:
    """Refuse what is no share."""
    if not 0 <= momentum <= 1:
        raise LocalLearnError(f"{rule}: momentum={momentum} is outside [0, 1].")


def _frozen(module: nn.Module) -> nn.Module:
    """Make buffers of all parameters."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                delattr(part, name)
                part.register_buffer(name, parameter.detach())
    return module

"""A local module: neighbouring layers of the backbone, run in order."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class LocalModule(nn.Module):
    """Layers run in order. It holds the modules it is given, which are not changed.

    Args:
        layers: the layers.
        begins_in_place: whether the first of them writes on its input, so that it must be given a copy.
    """

    def __init__(self, layers: Sequence[nn.Module], *, begins_in_place: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.begins_in_place = begins_in_place

    def forward(self, x: Tensor) -> Tensor:
        if self.begins_in_place:
            x = x.clone()
        for layer in self.layers:
            x = layer(x)
        return x

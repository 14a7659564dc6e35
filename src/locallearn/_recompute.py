"""A layer that is recomputed in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputed(nn.Module):
    """Runs `layer`, keeps its input alone, and runs it again in the backward pass.

    The second run replays random numbers and leaves running statistics and other buffers as they are.

    Args:
        layer: the layer; it is not changed.
        copy_input: run on a copy, for a layer that writes on its input.
    """

    def __init__(self, layer: nn.Module, *, copy_input: bool) -> None:
        super().__init__()
        self.once = _Once(layer, copy_input)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.once, x, use_reentrant=False, context_fn=self._contexts)  # pyright: ignore[reportReturnType]

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile what is run, not the running again."""
        self.once.compile(*args, **kwargs)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _buffers_apart(self.once)


class _Once(nn.Module):
    def __init__(self, layer: nn.Module, copy_input: bool) -> None:
        super().__init__()
        self.layer = layer
        self.copy_input = copy_input

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.clone() if self.copy_input else x)


@contextmanager
def _buffers_apart(layer: nn.Module) -> Iterator[None]:
    """Let the layer write on copies of its buffers."""
    kept = [(part._buffers, name, buffer) for part in layer.modules() for name, buffer in part._buffers.items()]
    try:
        for buffers, name, buffer in kept:
            buffers[name] = None if buffer is None else buffer.clone()
        yield
    finally:
        for buffers, name, buffer in kept:
            buffers[name] = buffer

"""A layer that is recomputed in the backward pass instead of being kept."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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

    def forward(self, *inputs: Tensor) -> Any:
        return checkpoint(self.once, *inputs, use_reentrant=False, context_fn=self._contexts)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile what is run, not the running again."""
        self.once.compile(*args, **kwargs)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _BuffersApart(self.once)


class _Once(nn.Module):
    def __init__(self, layer: nn.Module, copy_input: bool) -> None:
        super().__init__()
        self.layer = layer
        self.copy_input = copy_input

    def forward(self, x: Tensor, *more: Tensor) -> Any:
        return self.layer(x.clone() if self.copy_input else x, *more)


class _BuffersApart:
    """Lets a layer write on copies of its buffers; may be entered again after it was left."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __enter__(self) -> None:
        parts = [(part._buffers, name) for part in self.layer.modules() for name in part._buffers]
        self.kept = [(buffers, name, buffers[name]) for buffers, name in parts]
        for buffers, name, buffer in self.kept:
            buffers[name] = None if buffer is None else buffer.clone()

    def __exit__(self, *_: object) -> None:
        for buffers, name, buffer in self.kept:
            buffers[name] = buffer

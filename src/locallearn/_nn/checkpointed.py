"""A layer whose activations are recomputed in the backward pass (gradient checkpointing)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from locallearn._nn.module_state import EachTime, ModuleState
from locallearn._torch.device import is_capturing


class Checkpointed(nn.Module):
    """Runs `layer`, stores its input alone, and runs it again in the backward pass.

    The second run replays random numbers, sees the layer's state as the first one saw it, and leaves it as it is.

    Args:
        layer: the layer; it is not changed.
        copy_input: run on a copy, for a layer that writes on its input.
    """

    def __init__(self, layer: nn.Module, *, copy_input: bool) -> None:
        super().__init__()
        self.once = Once(layer, copy_input=copy_input)

    @property
    def layer(self) -> nn.Module:
        """The layer."""
        return self.once.layer

    def forward(self, *inputs: Tensor) -> Any:
        replays = not is_capturing(inputs[0].device)
        return checkpoint(
            self.once, *inputs, use_reentrant=False, context_fn=self._contexts, preserve_rng_state=replays
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the layer, not the checkpointing around it."""
        self.once.compile(*args, **kwargs)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        state = ModuleState(self.once)
        return state.first_run(), EachTime(state.another_run)


class Once(nn.Module):
    """Runs `layer` without checkpointing, on a copy of its input if `copy_input`."""

    def __init__(self, layer: nn.Module, *, copy_input: bool) -> None:
        super().__init__()
        self.layer = layer
        self.copy_input = copy_input

    def forward(self, x: Tensor, *more: Tensor) -> Any:
        return self.layer(x.clone() if self.copy_input else x, *more)


def saved_bytes(part: nn.Module, function: Callable[..., Any], *inputs: Tensor) -> int:
    """Bytes that a function saves for its backward pass, without its inputs and a module's parameters."""
    known = {id(tensor.untyped_storage()) for tensor in (*inputs, *part.parameters())}
    saved: dict[int, torch.UntypedStorage] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in known:
            saved[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        function(*inputs)
    return sum(storage.nbytes() for storage in saved.values())

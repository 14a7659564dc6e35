"""Block checkpointing: blocks that keep their input alone and run again, one at a time, in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._nn.module_state import ModuleState
from locallearn._recompute.activations import RecomputeActivations
from locallearn._recompute.saved_tensors import refuse_changed
from locallearn._torch import private_api
from locallearn._torch.device import is_capturing, random_state, set_random_state

Run = Callable[[Tensor], Tensor]

SavingContext = Callable[[], AbstractContextManager[RecomputeActivations | None]]
"""Makes the context in which a block runs again, so that it saves no more than it must."""


class RunState:
    """What a block's forward pass depends on, as it was before the first run, so that it can run again.

    Random numbers, mixed precision, and the block's own state. Of the input, which whoever runs the block keeps, it
    only knows whether it was written on since.

    Args:
        block: the block.
        features: its input.
    """

    def __init__(self, block: nn.Module, features: Tensor) -> None:
        self._device = device = features.device
        self._version = private_api.version_of(features)
        self._with_device = device.type == "cuda" and not is_capturing(device)
        self._random = random_state(device if self._with_device else torch.device("cpu"))
        self._autocast = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
        self._block = ModuleState(block)

    def run_without_graph(self, run: Run, features: Tensor) -> Tensor:
        """Run the block for the first time, without a graph."""
        with torch.no_grad(), self.first_run():
            return run(features)

    def first_run(self) -> AbstractContextManager[None]:
        """The context of the first run."""
        return self._block.first_run()

    def run_again(
        self, run: Run, features: Tensor, saving: SavingContext, original: Tensor | None = None, *, last: bool
    ) -> Tensor:
        """Run the block as the first time, now with a graph; the block's state stays as it is.

        Args:
            run: runs the block.
            features: its input.
            saving: the context in which it runs.
            original: the first run's output, where that is still alive: it is saved in place of the new one.
            last: whether the block does not run once more after this.
        """
        with torch.enable_grad(), self.another_run(features, last=last), saving() as recompute:
            output = run(features)
            if original is not None and recompute is not None:
                recompute.substitute(output, original)
        return output

    @contextmanager
    def another_run(self, features: Tensor, *, last: bool) -> Iterator[None]:
        """The context of a run as the first one; `last` if none follows.

        Raises:
            RuntimeError: the input was written on since the first run.
        """
        refuse_changed(features, self._version)
        enabled, dtype = self._autocast
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng([self._device] if self._with_device else []))
            stack.enter_context(torch.autocast(self._device.type, dtype=dtype, enabled=enabled))
            stack.enter_context(self._block.another_run(last=last))
            set_random_state(self._random, self._device)
            yield


@dataclass(frozen=True)
class _Entry:
    run: Run
    state: RunState
    features: Tensor
    gradients: list[Tensor]
    """Of the output, as they come."""


class CheckpointTape:
    """Blocks that ran without a graph, in order; `unwind` runs their backward passes in reverse, one at a time."""

    def __init__(self, saving: SavingContext) -> None:
        self._saving = saving
        self._entries: list[_Entry] = []

    def call(self, run: Run, block: nn.Module, features: Tensor) -> Tensor:
        """Run a block. The backward pass of what follows stops at its output; `unwind` takes it further."""
        trains = features.requires_grad or any(parameter.requires_grad for parameter in block.parameters())
        if not torch.is_grad_enabled() or not trains:
            return run(features)
        entry = _Entry(run, RunState(block, features), features, [])
        self._entries.append(entry)
        anchor = features.new_empty(0).requires_grad_()
        return _CatchGradient.apply(
            anchor, lambda: entry.state.run_without_graph(run, features.detach()), entry.gradients
        )

    def unwind(self) -> None:
        """Run the blocks again, last first, each followed by its backward pass."""
        while self._entries:
            entry = self._entries.pop()
            if not entry.gradients:
                continue
            leaf = entry.features.detach().requires_grad_(entry.features.requires_grad)
            gradient = _summed(entry.gradients)
            GradientRoot.apply(entry.state.run_again(entry.run, leaf, self._saving, last=True), gradient).backward()
            gradients = [] if leaf.grad is None else [leaf.grad]
            del leaf
            if gradients:
                _send(entry.features, gradients)


def _summed(gradients: list[Tensor]) -> list[Tensor]:
    while len(gradients) > 1:
        gradients.append(gradients.pop() + gradients.pop())
    return gradients


def _send(tensor: Tensor, gradient: list[Tensor]) -> None:
    """Pop a gradient and send it into the graph of a tensor, or add it to a leaf's."""
    if tensor.grad_fn is not None:
        GradientRoot.apply(tensor, gradient).backward()
    elif tensor.grad is None:
        tensor.grad = gradient.pop()
    else:
        tensor.grad.add_(gradient.pop())


class _CatchGradient(torch.autograd.Function):
    """Computes something without a graph, and appends the gradients that come back to a list."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, compute: Callable[[], Tensor], gradients: list[Tensor]) -> Tensor:
        ctx.gradients = gradients
        return compute()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.gradients.extend(gradients)
        return None, None, None


class GradientRoot(torch.autograd.Function):
    """The root of a backward pass that begins with a given gradient.

    It pops the gradient from a list, so autograd frees it as soon as it is used; `backward(gradient)` would keep it
    until the pass ends.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, gradient: list[Any]) -> Tensor:
        ctx.gradient = gradient
        return output.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, None]:
        return ctx.gradient.pop(), None


@contextmanager
def checkpointing(blocks: Sequence[nn.Module], saving: SavingContext) -> Iterator[CheckpointTape]:
    """While active, calls of the blocks go through a tape."""
    tape = CheckpointTape(saving)
    for block in blocks:
        block.forward = partial(tape.call, block.forward, block)  # on this object; its class's stays
    try:
        yield tape
    finally:
        for block in blocks:
            del block.forward

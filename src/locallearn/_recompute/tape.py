"""Parts that keep their input alone, and run again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._nn.checkpointed import BuffersApart
from locallearn._objectives.auxiliary import Auxiliary
from locallearn._recompute.activations import Remade
from locallearn._torch import private_api
from locallearn._torch.device import is_capturing

Run = Callable[[Tensor], Tensor]

Remaking = Callable[[], AbstractContextManager[Remade | None]]
"""Around what runs again, so that it keeps no more than it must."""


class Surroundings:
    """What a run depends on besides its inputs: random numbers and mixed precision, as they are now."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._with_device = device.type == "cuda" and not is_capturing(device)
        self._cpu, self._cuda = torch.get_rng_state(), torch.cuda.get_rng_state(device) if self._with_device else None
        self._autocast = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)

    def rerun(
        self, run: Run, part: nn.Module, features: Tensor, remaking: Remaking, original: Tensor | None = None
    ) -> Tensor:
        """Run again as it was, now with a graph; a part's buffers stay, and its output may stand for the original's."""
        enabled, dtype = self._autocast
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.random.fork_rng([self._device] if self._with_device else []))
            stack.enter_context(torch.autocast(self._device.type, dtype=dtype, enabled=enabled))
            stack.enter_context(BuffersApart(part))
            torch.set_rng_state(self._cpu)
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._cuda, self._device)
            remade = stack.enter_context(remaking())
            output = run(features)
            if original is not None and remade is not None:
                remade.stand_in(output, original)
        return output


@dataclass(frozen=True)
class _Entry:
    run: Run
    part: nn.Module
    surroundings: Surroundings
    features: Tensor
    gradients: list[Tensor]
    """Of the output, as they come."""
    version: int


class Tape:
    """Parts that ran without a graph, in order; their backward passes follow in reverse, one at a time."""

    def __init__(self, remaking: Remaking) -> None:
        self._remaking = remaking
        self._entries: list[_Entry] = []

    def call(self, run: Run, part: nn.Module, features: Tensor) -> Tensor:
        """What `run` gives. The backward pass of what follows ends there; `unwind` takes it further."""
        trains = features.requires_grad or any(parameter.requires_grad for parameter in part.parameters())
        if not torch.is_grad_enabled() or not trains:
            return run(features)
        entry = _Entry(run, part, Surroundings(features.device), features, [], private_api.version_of(features))
        self._entries.append(entry)
        return _Catch.apply(features.new_empty(0).requires_grad_(), lambda: run(features.detach()), entry.gradients)

    def unwind(self) -> None:
        """Run the parts again, last first, and send the gradients of their outputs through."""
        while self._entries:
            entry = self._entries.pop()
            if private_api.version_of(entry.features) != entry.version:
                raise RuntimeError(f"the input of {type(entry.part).__name__} was written on, so it cannot run again")
            if not entry.gradients:
                continue
            leaf = entry.features.detach().requires_grad_(entry.features.requires_grad)
            gradient = _summed(entry.gradients)
            Seed.apply(entry.surroundings.rerun(entry.run, entry.part, leaf, self._remaking), gradient).backward()
            gradients = [] if leaf.grad is None else [leaf.grad]
            del leaf
            if gradients:
                _send(entry.features, gradients)


def _summed(gradients: list[Tensor]) -> list[Tensor]:
    while len(gradients) > 1:
        gradients.append(gradients.pop() + gradients.pop())
    return gradients


def _send(tensor: Tensor, gradient: list[Tensor]) -> None:
    """Send a gradient, taken out of its list, into the graph behind a tensor, or add it to a leaf's."""
    if tensor.grad_fn is not None:
        Seed.apply(tensor, gradient).backward()
    elif tensor.grad is None:
        tensor.grad = gradient.pop()
    else:
        tensor.grad.add_(gradient.pop())


class _Catch(torch.autograd.Function):
    """Computes something without a graph; the gradients that come back are put into a list."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, compute: Callable[[], Tensor], gradients: list[Tensor]) -> Tensor:
        ctx.gradients = gradients
        return compute()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.gradients.extend(gradients)
        return None, None, None


class Seed(torch.autograd.Function):
    """The root of a backward pass that begins with a given gradient.

    Given to `backward` directly, the gradient would be kept until the pass ends; out of its box it is freed once used.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, box: list[Any]) -> Tensor:
        ctx.box = box
        return output.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, None]:
        return ctx.box.pop(), None


def units(network: nn.Module) -> list[nn.Module]:
    """Parts of a network worth running again one by one: those that hold several layers with weights themselves.

    Residual blocks and the like, that is; neither containers nor auxiliary networks.
    """
    leaves = [child for child in network.children() if not any(True for _ in child.children())]
    weighted = [leaf for leaf in leaves if next(leaf.parameters(), None) is not None]
    if len(weighted) > 1 and not isinstance(network, nn.Sequential | nn.ModuleList | Auxiliary):
        return [network]
    return [unit for child in network.children() for unit in units(child)]


@contextmanager
def taping(parts: Sequence[nn.Module], remaking: Remaking) -> Iterator[Tape]:
    """While active, calls of the parts go through a tape."""
    tape = Tape(remaking)
    for part in parts:
        part.forward = partial(tape.call, part.forward, part)  # on this object, before its class's
    try:
        yield tape
    finally:
        for part in parts:
            del part.forward

"""The state that a module's forward pass reads and changes besides its input, so that it can run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from locallearn._nn.hooks_once import HooksOnce
from locallearn._nn.state_copy import State, StateCopy, mark_of, state_of
from locallearn._torch import private_api
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.host_random import host_random_state, set_host_random_state

_written = WeakIdKeyDictionary()
"""For each weight and each large tensor that a layer ran with: whether the layer wrote on it."""


class ModuleState:
    """The state of a module as it was before its first run, and a second run that sees it.

    A copy of the state is made before the first run: buffers, frozen weights, attributes of any kind, Python's and
    NumPy's random numbers. The second run has a copy of this copy, so what it changes is thrown away. PyTorch's random
    numbers are not in it, nor what is outside of the module (attributes of its class, global variables).

    Weights that train, and tensors above 64 KiB, are not copied in each step. The first time that a module runs with
    them they are compared with a copy: those that it writes on are copied from then on, the others watched.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._old: dict[Tensor, Tensor] = {}
        self._hooks = HooksOnce()

    @contextmanager
    def first_run(self) -> Iterator[None]:
        """Around the first run: remembers the state of before.

        Raises:
            LocalLearnError: the module wrote on a weight, and did not do so before.
        """
        self._random = host_random_state()
        before = StateCopy(state_of(self._module.modules()))
        self._before = before.state
        self._old = {tensor: tensor.detach().clone() for tensor in before.shared if _written.get(tensor, True)}
        watched = [tensor for tensor in before.shared if tensor not in self._old]
        marks = list(map(mark_of, watched))
        versions = {tensor: private_api.version_of(tensor) for tensor in self._old}
        with self._hooks.first_run(part for part, _ in self._before):
            yield
        for tensor, mark in zip(watched, marks, strict=True):
            if mark_of(tensor) != mark:
                _written[tensor] = True
                raise self._error(tensor, "in its forward pass, which it did not do in earlier steps")
        for tensor, copy in list(self._old.items()):
            if tensor not in _written:
                _written[tensor] = private_api.version_of(tensor) != versions[tensor] or not _equal(tensor, copy)
            if not _written[tensor]:
                del self._old[tensor]
        self._watched = [(t, private_api.version_of(t)) for t in before.shared if t not in self._old]

    @contextmanager
    def another_run(self, *, last: bool = False) -> Iterator[None]:
        """Around another run: it sees the state of before the first one; afterwards the module is as it is now.

        Args:
            last: whether no other run follows, so that this one may change the copy of the state.

        Raises:
            LocalLearnError: a weight was written on after the first run.
        """
        for tensor, version in self._watched:
            if private_api.version_of(tensor) != version:
                _written[tensor] = True
                raise self._error(tensor, "after the layer's forward pass")
        known = {tensor: _AsBefore.apply(tensor, copy) for tensor, copy in self._old.items()}
        again = self._before if last and not known else StateCopy(self._before, known).state
        now, state = state_of(part for part, _ in again), host_random_state()
        try:
            _give(again)
            set_host_random_state(self._random)
            with self._hooks.another_run():
                yield
        finally:
            _give(now)
            set_host_random_state(state)

    def _error(self, tensor: Tensor, when: str) -> LocalLearnError:
        parts = ((part, name) for part, own in self._before for name in own["_parameters"])
        places = ((part, name) for part, name in parts if part._parameters.get(name) is tensor)
        part, name = next(places, (self._module, "a tensor"))
        return LocalLearnError(
            f"{name} of a {type(part).__name__}, of shape {tuple(tensor.shape)}, was written on {when}, so the layer"
            " cannot run again in this step's backward pass: zero the gradients and go on; from now on it is copied"
            " before each step. With memory='fast' and a rule other than Checkpoint no layer runs again."
        )


class _AsBefore(torch.autograd.Function):
    """The value of a tensor as it was; its gradient is that of the tensor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _equal(tensor: Tensor, copy: Tensor) -> bool:
    return tensor.shape == copy.shape and torch.equal(tensor.detach(), copy)


def _give(state: State) -> None:
    for module, attributes in state:
        object.__setattr__(module, "__dict__", attributes)


class EachTime:
    """A context that may be entered several times, one after the other: each time `make` makes it anew."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make

    def __enter__(self) -> None:
        self._context = self._make()
        self._context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

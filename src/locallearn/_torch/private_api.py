"""The only file that touches PyTorch's private names, which may differ between versions.

Most of it is about fake tensors: tensors with shape, device and autograd, but without data.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from threading import RLock
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException as DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

from locallearn._torch.deep_copy import deep_copy

Module = TypeVar("Module", bound=nn.Module)


_ONE_THREAD = RLock()
"""Logs and warnings are silenced for the whole process."""


@contextmanager
def fake_mode() -> Iterator[FakeTensorMode]:
    """While active, operators compute shapes only; real tensors may enter and are never written.

    A number read from a tensor (`x.item()`, `if x.mean() > 0`) is 1. An operator that fails raises its error; PyTorch's
    log of it is silent.
    """
    log = logging.getLogger("torch._subclasses.fake_tensor")
    with _ONE_THREAD, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about data
        was_disabled, log.disabled = log.disabled, True
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as mode, _AssumedNumbers():
                yield mode
        finally:
            log.disabled = was_disabled


class _AssumedNumbers(TorchDispatchMode):
    """Gives 1 where Python reads a number from a tensor that has no data, unless `numbers_refused` is active."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS and isinstance(args[0], FakeTensor) and not _refused.get():
            dtype = args[0].dtype
            if dtype is torch.bool or func is not torch.ops.aten._local_scalar_dense.default:
                return True
            return 1.0 if dtype.is_floating_point else 1
        return func(*args, **(kwargs or {}))


_refused: ContextVar[bool] = ContextVar("refused", default=False)


@contextmanager
def numbers_refused() -> Iterator[None]:
    """While active, an operator that reads a number from a tensor without data raises PyTorch's error."""
    token = _refused.set(True)
    try:
        yield
    finally:
        _refused.reset(token)


_READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)


def fake_copy(module: Module, mode: FakeTensorMode) -> Module:
    """A deep copy whose parameters and buffers are fake, without hooks: it takes no memory and shares nothing."""
    fakes: dict[int, object] = {id(buffer): mode.from_tensor(buffer) for buffer in module.buffers()}
    with unset_fake_temporarily():  # detaching real tensors in fake mode takes ten times as long
        detached = [(parameter, parameter.detach()) for parameter in module.parameters()]
    for parameter, data in detached:
        fake = mode.from_tensor(data).requires_grad_(parameter.requires_grad)
        fake._is_param = True  # as nn.Parameter marks tensors of other types
        fakes[id(parameter)] = fake
    with unset_fake_temporarily():  # tensors that are not registered are few, and copied as they are
        return without_hooks(deep_copy(module, fakes))


def without_hooks(module: Module) -> Module:
    """Remove the user's hooks of a module and of its parts, in place; those that compute a weight stay."""
    for part in module.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks):
            for key in [key for key, hook in hooks.items() if not type(hook).__module__.startswith("torch.nn.utils")]:
                del hooks[key]
    return module


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to in place."""
    return tensor._version


def allow_compilations(count: int) -> None:
    """Let `torch.compile` keep this many versions of one function; modules of different layers share their code."""
    config = import_module("torch._dynamo").config
    config.recompile_limit = max(config.recompile_limit, count)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 2 * count)


def keep_compiled_graphs() -> None:
    """Let a compiled graph run backward several times: it must not reuse the memory of its saved tensors."""
    config: Any = import_module("torch._functorch.config")
    config.donated_buffer = False

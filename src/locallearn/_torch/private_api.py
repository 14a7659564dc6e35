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
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

from locallearn._torch.deep_copy import deep_copy
from locallearn._utils.errors import UnpredictableError, reason_of

Module = TypeVar("Module", bound=nn.Module)


_ONE_THREAD = RLock()
"""Logs and warnings are silenced for the whole process."""


@contextmanager
def fake_mode() -> Iterator[FakeTensorMode]:
    """While active, operators compute shapes only; real tensors may enter and are never written.

    A number read from a tensor (`x.item()`, `if x.mean() > 0`) is 1. An operator that fails raises its error; PyTorch's
    log of it is silent. Hooks of all modules (`register_module_forward_hook`) are off.

    Raises:
        UnpredictableError: a shape depends on the values of a tensor, and the code inside did not handle that.
    """
    log = logging.getLogger("torch._subclasses.fake_tensor")
    with _ONE_THREAD, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about data
        was_disabled, log.disabled = log.disabled, True
        try:
            with _no_global_hooks(), FakeTensorMode(allow_non_fake_inputs=True) as mode, _AssumedNumbers():
                yield mode
        except Exception as error:
            if needs_values(error):
                raise unpredictable("a part of the network", error) from error
            raise
        finally:
            log.disabled = was_disabled


def unpredictable(what: str, error: Exception) -> UnpredictableError:
    """The error for what `needs_values`."""
    return UnpredictableError(
        f"{what} has shapes that depend on the values of tensors ({reason_of(error)}), so its memory cannot be"
        " predicted."
    )


def needs_values(error: BaseException) -> bool:
    """Whether an operator failed because a tensor has no data, on whose values the shape of its output depends."""
    return isinstance(error, DataDependentOutputException | DynamicOutputShapeException)


def is_fake_mode() -> bool:
    """Whether `fake_mode` is active."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


@contextmanager
def _no_global_hooks() -> Iterator[None]:
    """While active, calls of modules see no global hooks; handles of these hooks stay valid."""
    module: Any = import_module("torch.nn.modules.module")
    hooks = {name: getattr(module, name) for name in _GLOBAL_HOOKS}
    try:
        for name, registered in hooks.items():
            setattr(module, name, type(registered)())
        yield
    finally:
        for name, registered in hooks.items():
            setattr(module, name, registered)


_GLOBAL_FORWARD_HOOKS = "_global_forward_hooks", "_global_forward_pre_hooks"
_GLOBAL_HOOKS = (*_GLOBAL_FORWARD_HOOKS, "_global_backward_hooks", "_global_backward_pre_hooks")


def global_forward_hooks() -> list[dict[int, Any]]:
    """The registries of hooks and pre-hooks that fire for every module."""
    module = import_module("torch.nn.modules.module")
    return [getattr(module, name) for name in _GLOBAL_FORWARD_HOOKS]


def has_global_backward_hooks() -> bool:
    """Whether hooks for the backward pass of every module are registered."""
    module = import_module("torch.nn.modules.module")
    return bool(module._global_backward_hooks or module._global_backward_pre_hooks)


def is_of_backward_hook(error: BaseException) -> bool:
    """Whether PyTorch refused to write on what a module with a full backward hook takes or returns."""
    return "BackwardHookFunction" in str(error)


def composed_by(module: nn.Module) -> list[str]:
    """Names of what `torch.distributed` applied to a module in place, such as `replicate`."""
    contract: Any = import_module("torch.distributed._composable.contract")
    return list(contract._get_registry(module) or ())


def computes_weight(hook: object) -> bool:
    """Whether a hook is PyTorch's own that computes a weight, as `nn.utils.weight_norm` registers one."""
    return type(hook).__module__.startswith("torch.nn.utils")


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
    fakes: dict[int, object] = {id(buffer): _fake(buffer, mode) for buffer in module.buffers()}
    for parameter in module.parameters():
        fake = _fake(parameter, mode)
        fake._is_param = True  # as nn.Parameter marks tensors of other types
        fakes[id(parameter)] = fake
    with unset_fake_temporarily():  # tensors that are not registered are few, and copied as they are
        return without_hooks(deep_copy(module, fakes))


def _fake(tensor: Tensor, mode: FakeTensorMode) -> FakeTensor:
    """A fake tensor like a parameter or a buffer, without a parameter's gradient."""
    if (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and not (tensor._is_view() or tensor.is_quantized or tensor.is_inference() or tensor.grad_fn)
        and tensor.untyped_storage().nbytes() == tensor.nbytes
    ):
        with no_dispatch():  # takes a tenth of the time of PyTorch's own function, which knows tensors of all kinds
            like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            fake = FakeTensor(mode, like, tensor.device)
    elif isinstance(tensor, nn.Parameter):
        with unset_fake_temporarily():  # in fake mode this takes ten times as long
            data = tensor.detach()
        fake = mode.from_tensor(data)
    else:
        fake = mode.from_tensor(tensor)
    fake.requires_grad_(tensor.requires_grad)
    return fake


def without_hooks(module: Module) -> Module:
    """Remove the user's hooks of a module and of its parts, in place; those that compute a weight stay."""
    for part in module.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks):
            for key in [key for key, hook in hooks.items() if not computes_weight(hook)]:
                del hooks[key]
    return module


def holds_numbers(tensor: Tensor) -> bool:
    """Whether it is a plain tensor, not a fake one or another that stands for numbers elsewhere."""
    return type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__  # pyright: ignore[reportAttributeAccessIssue]


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

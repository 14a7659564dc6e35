"""Copies of what modules hold besides their weights, so that a run on the copy changes nothing of the original."""

from __future__ import annotations

import copy
import io
import types
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from locallearn._torch import private_api
from locallearn._utils.errors import LocalLearnError

State = list[tuple[nn.Module, dict[str, Any]]]
"""Modules and their attributes, as in `vars(module)`."""

WEIGHTS = "weights_as_buffers"
"""Attribute of a module: names of buffers that are weights, of an EMA copy; shared, as weights that train are."""

_SMALL = 2**16
"""Bytes up to which a tensor that does not train is copied; a larger one is watched."""

_CONSTANT = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, range, slice, type, partial, object),
        *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType),
        *(torch.Size, torch.dtype, torch.device),
    }
)
_HOOKS = frozenset(name for name in vars(nn.Module()) if "hook" in name)


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def state_of(modules: Iterable[nn.Module]) -> State:
    """The modules' attributes themselves."""
    return [(module, vars(module)) for module in modules]


class StateCopy:
    """A copy of the state of modules: buffers, frozen weights, numbers, lists, generators of random numbers.

    Modules, weights that train or follow others, large tensors and hooks are shared with the original. Modules that are
    hidden in lists or other attributes belong to the state.

    Args:
        state: the modules and their attributes.
        known: what stands in the copy for some tensors.

    Attributes:
        state: the copy.
        shared: the tensors that it shares with the original.
    """

    def __init__(self, state: State, known: dict[Tensor, Tensor] | None = None) -> None:
        self.shared: list[Tensor] = []
        self.state: State = []
        self._all_shared = private_api.is_fake_mode()
        self._hidden: list[nn.Module] = []
        self._memo: dict[int, Any] = {id(tensor): stand_in for tensor, stand_in in (known or {}).items()}
        pending = state
        while pending:
            self._memo.update((id(module), module) for module, _ in pending)
            for _, attributes in pending:
                self._copied(attributes["_parameters"])
                for name in () if self._all_shared else attributes.get(WEIGHTS, ()):
                    if id(weight := attributes["_buffers"][name]) not in self._memo:
                        self._memo[id(weight)] = weight
                        self.shared.append(weight)
            for module, attributes in pending:
                own = attributes.copy()
                for name, value in attributes.items():
                    if type(value) not in _CONSTANT and name not in _HOOKS:
                        own[name] = self._copied(value)
                self.state.append((module, own))
            inside = {id(part): part for module in self._hidden for part in module.modules()}
            listed = {id(module) for module, _ in self.state}
            pending, self._hidden = state_of(part for key, part in inside.items() if key not in listed), []

    def _copied(self, value: Any) -> Any:
        kind = type(value)
        if kind in _CONSTANT or (kind is tuple and _CONSTANT.issuperset(map(type, value))):
            return value
        if id(value) in self._memo:
            return self._memo[id(value)]
        if isinstance(value, nn.Module):
            self._hidden.append(value)
            copied = value
        elif isinstance(value, Tensor):
            copied = self._tensor(value)
        elif isinstance(value, tuple):
            parts = [self._copied(part) for part in value]
            changed = any(new is not old for new, old in zip(parts, value, strict=True))
            copied = getattr(kind, "_make", kind)(parts) if changed else value
        elif isinstance(value, set):
            copied = copy.copy(value)
        elif isinstance(value, list | dict | deque):
            plain = kind in (list, dict, deque)
            copied = self._memo[id(value)] = value.copy() if plain else copy.copy(value)  # the same subclass
            for key in list(value) if isinstance(value, dict) else range(len(value)):
                copied[key] = self._copied(value[key])
        else:
            copied = self._object(value)
        self._memo[id(value)] = copied
        return copied

    def _tensor(self, tensor: Tensor) -> Tensor:
        if tensor.grad_fn is not None or self._all_shared:
            return tensor
        strided = tensor.layout is torch.strided
        if tensor.requires_grad or (tensor.untyped_storage().nbytes() if strided else tensor.nbytes) > _SMALL:
            self.shared.append(tensor)
            return tensor
        copied = self._clone(tensor.detach()) if strided else tensor.clone()
        return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied

    def _clone(self, tensor: Tensor) -> Tensor:
        """A copy; views of one storage become views of one copy."""
        storage = tensor.untyped_storage()
        if id(storage) not in self._memo:
            is_all = tensor.nbytes == storage.nbytes() and tensor.is_contiguous()
            words = (storage.nbytes() // tensor.itemsize,)
            clone = (tensor if is_all else tensor.new_empty(0).set_(storage, 0, words, (1,))).clone()
            self._memo[id(storage)] = clone.untyped_storage()
            if is_all:
                return clone
        return tensor.new_empty(0).set_(self._memo[id(storage)], tensor.storage_offset(), tensor.shape, tensor.stride())

    def _object(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, torch.Generator):
            generator = torch.Generator(value.device)
            return generator.set_state(value.get_state())
        if kind.__module__.partition(".")[0] == "torch":
            return value
        plain = kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__
        if plain and hasattr(value, "__dict__") and not (hasattr(kind, "__copy__") or hasattr(kind, "__deepcopy__")):
            copied = self._memo[id(value)] = copy.copy(value)
            vars(copied).update({name: self._copied(attribute) for name, attribute in vars(value).items()})
            return copied
        try:
            return copy.deepcopy(value, self._memo)
        except Exception as error:  # a lock or an open file has no state that a layer computes with
            if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
                raise LocalLearnError(
                    f"a layer holds a {kind.__name__}, which cannot be copied, so the layer cannot run again in the"
                    " backward pass: use memory='fast' and a rule other than Checkpoint."
                ) from error
            return value


def mark_of(tensor: Tensor) -> tuple[int, int, int]:
    """Differs after a write: also after one through `.data`, except on an accelerator, which it never waits for.

    Of a tensor without numbers of its own, such as a fake one, only PyTorch's count of writes is known.
    """
    if not private_api.holds_numbers(tensor):
        return private_api.version_of(tensor), 0, 0
    total = 0
    if tensor.device.type == "cpu" and (size := tensor.element_size()) in _INTEGERS:
        flat = tensor.detach().reshape(-1).view(_INTEGERS[size]).numpy()
        total = int((flat.view(np.int64) if flat.nbytes % 8 == 0 else flat).sum(dtype=np.int64))
    return private_api.version_of(tensor), tensor.data_ptr(), total

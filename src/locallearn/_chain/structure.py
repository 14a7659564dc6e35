"""A key for a module's structure: two modules with the same key do the same to tensors without data."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from locallearn._chain.chain import COPIED_LAYER
from locallearn._chain.layout import Layout
from locallearn._torch.device import mixed_now

Found = TypeVar("Found")

_PLAIN = {int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size}

_LIBRARIES = ("torch", "torchvision", "timm", "locallearn")


def structure(module: nn.Module) -> Hashable:
    """The types, attributes and tensor shapes of a module and its parts, as a key.

    Attributes of other types than numbers, texts, containers and modules, functions for instance, count by identity.
    So do tensors that are neither parameters nor buffers, whose values a forward pass could read. Keys are thus
    comparable while the modules live, and modules that may differ never share one. A class's `outside_structure` names
    attributes that do not count: they differ from site to site, and neither shapes nor writes in place depend on them.
    """
    return _Walk().module(module)


class Remembered(Generic[Found]):
    """What was found out about modules of libraries, by their structure, for as long as the process lives."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Found] = {}

    def find(
        self,
        module: nn.Module,
        device: torch.device,
        *more: Hashable,
        compute: Callable[[], Found],
        meanwhile: dict[Hashable, Found] | None = None,
    ) -> Found:
        """What is remembered for a module of this structure, else what `compute` finds out.

        Where a part counts by identity, or has a user's own code, which a notebook may change, nothing lasts.

        Args:
            module: the module.
            device: of the tensors that it takes.
            more: whatever else the result depends on.
            compute: finds it out.
            meanwhile: remembers what does not last, while the modules live.
        """
        walk = _Walk()
        key = walk.module(module), torch.get_default_dtype(), mixed_now(device), more
        found = self._found if walk.lasts else meanwhile
        if found is None:
            return compute()
        if key not in found:
            result = compute()
            if len(found) == _MOST:
                found.clear()
            found[key] = result
        return found[key]


_MOST = 128


def _is_of_library(code: Any) -> bool:
    """Whether it is a class or function of a library."""
    name, module = (getattr(code, attribute, None) for attribute in ("__qualname__", "__module__"))
    if not isinstance(name, str) or not isinstance(module, str) or not _is_library(module):
        return False
    return getattr(sys.modules.get(module), name, None) is code


def _has_methods_of_libraries(kind: type[nn.Module]) -> bool:
    """Whether no user replaced a method. Globals tell a function's own module, even under `functools.wraps`."""
    own = (one for one in kind.__mro__ if one not in (nn.Module, object))
    functions = (value for one in own for value in vars(one).values() if isinstance(value, FunctionType))
    return all(_is_library(function.__globals__.get("__name__", "")) for function in functions)


def _is_library(module: str) -> bool:
    return module.partition(".")[0] in _LIBRARIES


class _Walk:
    """One visit of a module's parts; what is met again becomes its number, so that sharing is part of the key."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.kinds: set[type[nn.Module]] = set()
        self.lasts = True  # nothing counts by identity, and all code is of libraries

    def module(self, module: nn.Module) -> Hashable:
        if (number := self._number(module)) is not None:
            return "again", number
        if (kind := type(module)) not in self.kinds:
            self.kinds.add(kind)
            self.lasts = self.lasts and _is_of_library(kind) and _has_methods_of_libraries(kind)
        outside = (*getattr(kind, "outside_structure", ()), COPIED_LAYER)
        attributes = tuple(
            (name, self._tensors(value) if name in ("_parameters", "_buffers") else self._value(value))
            for name, value in vars(module).items()
            if name not in outside
        )
        return kind, attributes

    def _tensors(self, tensors: dict[str, Tensor | None]) -> Hashable:
        return tuple((name, None if tensor is None else self._tensor(tensor)) for name, tensor in tensors.items())

    def _tensor(self, tensor: Tensor) -> Hashable:
        if (number := self._number(tensor)) is not None:
            return "again", number
        return type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad

    def _value(self, value: Any) -> Hashable:
        kind = type(value)
        if kind in _PLAIN:
            return kind, value
        if kind in (dict, OrderedDict):
            return (kind, *((self._value(name), self._value(part)) for name, part in value.items())) if value else kind
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, Enum | Layout):
            return kind, value
        if kind in (tuple, list):
            return kind, tuple(self._value(part) for part in value)
        if kind in (set, frozenset):
            return kind, frozenset(self._value(part) for part in value)
        if _is_of_library(value):
            return value
        self.lasts = False
        return kind, id(value)

    def _number(self, part: object) -> int | None:
        """The number of a part that was met before; a new part gets the next one."""
        number = self.numbers.get(id(part))
        if number is None:
            self.numbers[id(part)] = len(self.numbers)
        return number

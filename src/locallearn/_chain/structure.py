"""A key for a module's structure: two modules with the same key do the same to tensors without data."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum
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

    def find(self, module: nn.Module, device: torch.device, *more: Hashable, compute: Callable[[], Found]) -> Found:
        """What `compute` finds out about a module, from `more`, where tensors are on a device.

        It is computed anew where a part counts by identity, or has a user's own code, which a notebook may change.
        """
        if not all(
            _is_of_library(kind) and _is_in_library(kind.forward) for kind in {type(p) for p in module.modules()}
        ):
            return compute()
        walk = _Walk()
        key = walk.module(module), torch.get_default_dtype(), mixed_now(device), more
        if not walk.lasts:
            return compute()
        if key in self._found:
            return self._found[key]
        if len(self._found) == _MOST:
            self._found = {}
        found = self._found[key] = compute()
        return found


_MOST = 128


def _is_of_library(code: Any) -> bool:
    """Whether it is a class or function of a library."""
    name = getattr(code, "__qualname__", None)
    return isinstance(name, str) and _is_in_library(code) and getattr(sys.modules[code.__module__], name, None) is code


def _is_in_library(code: Any) -> bool:
    """Whether a class or function stands in the code of a library, and not in a user's, who may replace a method."""
    module = getattr(code, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] in _LIBRARIES and module in sys.modules


class _Walk:
    """One visit of a module's parts; what is met again becomes its number, so that sharing is part of the key."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.lasts = True  # nothing counts by identity

    def module(self, module: nn.Module) -> Hashable:
        if (number := self._number(module)) is not None:
            return "again", number
        outside = (*getattr(type(module), "outside_structure", ()), COPIED_LAYER)
        attributes = tuple(
            (name, self._tensors(value) if name in ("_parameters", "_buffers") else self._value(value))
            for name, value in vars(module).items()
            if name not in outside
        )
        return type(module), attributes

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

"""A key for a module's structure: two modules with the same key do the same to tensors without data."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._chain.chain import COPIED_LAYER
from locallearn._chain.layout import Layout
from locallearn._nn.ema import EmaCopy
from locallearn._objectives.auxiliary import WeightedSum

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size)

_IRRELEVANT = {WeightedSum: "weights", EmaCopy: "sources"}
"""Attributes that differ from site to site, and on which neither shapes nor writes in place depend."""


def structure(module: nn.Module) -> Hashable:
    """The types, attributes and tensor shapes of a module and its parts, as a key.

    Attributes of other types than numbers, texts, containers and modules, functions for instance, count by identity.
    So do tensors that are neither parameters nor buffers, whose values a forward pass could read. Keys are thus
    comparable while the modules live, and modules that may differ never share one.
    """
    return _Walk().module(module)


class _Walk:
    """One visit of a module's parts; what is met again becomes its number, so that sharing is part of the key."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def module(self, module: nn.Module) -> Hashable:
        if (number := self._number(module)) is not None:
            return "again", number
        irrelevant = _IRRELEVANT.get(type(module))
        attributes = tuple(
            (name, self._tensors(value) if name in ("_parameters", "_buffers") else self._value(value))
            for name, value in vars(module).items()
            if name not in (irrelevant, COPIED_LAYER)
        )
        return type(module), attributes

    def _tensors(self, tensors: dict[str, Tensor | None]) -> Hashable:
        return tuple((name, None if tensor is None else self._tensor(tensor)) for name, tensor in tensors.items())

    def _tensor(self, tensor: Tensor) -> Hashable:
        if (number := self._number(tensor)) is not None:
            return "again", number
        return type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad

    def _value(self, value: Any) -> Hashable:
        if isinstance(value, nn.Module):
            return self.module(value)
        if type(value) in _PLAIN or isinstance(value, Enum | Layout):
            return type(value), value
        if type(value) in (tuple, list):
            return type(value), tuple(self._value(part) for part in value)
        if type(value) in (dict, OrderedDict):
            return type(value), tuple((self._value(name), self._value(part)) for name, part in value.items())
        if type(value) in (set, frozenset):
            return type(value), frozenset(self._value(part) for part in value)
        return type(value), id(value)

    def _number(self, part: object) -> int | None:
        """The number of a part that was met before; a new part gets the next one."""
        number = self.numbers.get(id(part))
        if number is None:
            self.numbers[id(part)] = len(self.numbers)
        return number

"""Deep copies of modules whose attributes hold computed tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def deep_copy(module: Module, known: dict[int, object] | None = None) -> Module:
    """A deep copy; of tensors that were computed, such as the weight under `nn.utils.weight_norm`, the values alone.

    Args:
        module: the module.
        known: copies that are there already, by the id of the original.
    """
    known = {} if known is None else known
    for part in _parts(module):
        for value in vars(part).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                known.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(module, known)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The module's parts, and modules that lie in their lists and tuples, as those that an EMA copy follows."""
    for part in module.modules():
        yield part
        for value in vars(part).values():
            if isinstance(value, tuple | list):
                for hidden in value:
                    if isinstance(hidden, nn.Module):
                        yield from hidden.modules()

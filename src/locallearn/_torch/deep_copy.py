"""Deep copies of modules whose attributes hold computed tensors."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any, TypeVar

from torch import Tensor, nn

from locallearn._utils.errors import LocalLearnError, reason_of

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
    return _copy(module, known)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The module's parts, and modules that lie in their lists and tuples, as those that an EMA copy follows."""
    for part in module.modules():
        yield part
        for hidden in chain.from_iterable(value for value in vars(part).values() if isinstance(value, tuple | list)):
            if isinstance(hidden, nn.Module):
                yield from hidden.modules()


def _copy(value: Any, known: dict[int, Any]) -> Any:
    """As `copy.deepcopy`, which takes three times as long over the many empty dictionaries of modules."""
    kind = type(value)
    if kind in _UNCHANGED:
        return value
    if id(value) in known:
        return known[id(value)]
    if kind is dict:
        new = known[id(value)] = {}
        new.update({_copy(name, known): _copy(part, known) for name, part in value.items()})
        return new
    if kind in (OrderedDict, set) and not value:
        return known.setdefault(id(value), kind())
    if isinstance(value, nn.Module) and _has_no_copying_of_its_own(kind):
        cls: Any = kind
        module = known[id(value)] = cls.__new__(cls)
        module.__setstate__({name: _copy(part, known) for name, part in vars(value).items()})
        return module
    try:
        return copy.deepcopy(value, known)
    except (TypeError, copy.Error) as error:
        raise LocalLearnError(
            f"a network holds a {kind.__name__}, which cannot be copied ({reason_of(error)}): make it where it is used,"
            " or give the class of the layer that holds it a method __deepcopy__."
        ) from error


_UNCHANGED = (bool, int, float, str, type(None))


@cache
def _has_no_copying_of_its_own(kind: type[nn.Module]) -> bool:
    names = ("__reduce_ex__", "__reduce__", "__getstate__", "__deepcopy__", "__getnewargs__", "__getnewargs_ex__")
    is_usual = all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in names)
    return is_usual and not any(vars(base).get("__slots__") for base in kind.__mro__)

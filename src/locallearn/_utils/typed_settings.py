"""Settings whose values must be of their annotated types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from locallearn._utils.errors import LocalLearnError, refuse_unknown

_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", NoneType: "None"}


class TypedSettings:
    """A base of settings; subclasses are frozen dataclasses whose own `__post_init__` calls this one first."""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Refuse a class whose settings `dataclass` did not see."""
        for kind in cls.__mro__:
            if issubclass(kind, TypedSettings) and (unseen := _unseen(kind)):
                raise LocalLearnError(
                    f"{kind.__name__} sets {unseen}, which has no effect: annotate it, and write"
                    " @dataclass(frozen=True, kw_only=True) above the class."
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Refuse values of other types than the annotated ones, and words that are none of the choices."""
        for setting in fields(self) if is_dataclass(self) else ():
            value, kind = getattr(self, setting.name), _hints(type(self)).get(setting.name, Any)
            if get_origin(kind) is Literal:
                refuse_unknown(setting.name, value, get_args(kind))
            if not _fits(value, kind):
                raise LocalLearnError(f"{type(self).__name__}: {setting.name}={_short(value)} is not {_words(kind)}.")


@cache
def _unseen(kind: type) -> str | None:
    """Name of a setting that a class defines in vain: it is no dataclass itself, or only a value stands there."""
    annotated = vars(kind).get("__annotations__", {})
    known = {setting.name for setting in fields(kind)} if is_dataclass(kind) else set()
    own = [name for name in vars(kind) if name in known and name not in annotated]
    if "__dataclass_fields__" not in vars(kind):
        own += [name for name, annotation in annotated.items() if "ClassVar" not in str(annotation)]
    return own[0] if own else None


@cache
def _hints(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind)
    except NameError:  # a user's class names types that are imported for checkers alone
        return {}


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin in (list, tuple):
        is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return is_list and all(any(_fits(one, part) for part in parts if part is not ...) for one in value)
    if kind in (int, float):
        wanted = Integral if kind is int else Real
        return isinstance(value, wanted) and not isinstance(value, bool) and isfinite(value)
    try:
        return isinstance(value, kind) if isinstance(kind, type) else True
    except TypeError:  # Any, or a protocol that is for checkers alone
        return True


def _words(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_words, get_args(kind)))
    if get_origin(kind) in (list, tuple):
        return f"a list, each {_words(get_args(kind)[0])}"
    return _WORDS.get(kind, f"an instance of {kind.__name__}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

"""Names that stand for code: entry points, ours and those of any installed package, and dotted paths.

Every import of a name that is not part of this source goes through `load`. It refuses code that only a file names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

from locallearn._utils.errors import LocalLearnError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Which dotted paths may be imported, besides registered names.

    Args:
        paths: those that the user typed; what they stand for is added.
        code: whether to trust the code that files name.
        say: called with a sentence before such code is imported.
    """

    paths: set[str]
    code: bool = False
    say: Callable[[str], object] = lambda _: None


_TRUST: ContextVar[Trust | None] = ContextVar("trust", default=None)
"""None: all names come from the caller's own Python code."""

_OTHER_CODE: set[str] = set()
"""Dotted paths that were asked for in this process and are not registered."""


@contextmanager
def trusting(trust: Trust) -> Iterator[None]:
    """Import no other code by a dotted path."""
    token = _TRUST.set(trust)
    try:
        yield
    finally:
        _TRUST.reset(token)


def names_of_file(*, trust_code: bool) -> AbstractContextManager[None]:
    """Import what a file names only if it is registered or trusted; within a command, its own `trusting` holds."""
    return trusting(Trust(paths=set(), code=trust_code)) if _TRUST.get() is None else nullcontext()


def load(path: str, *, known: Collection[str] = ()) -> Any:
    """What a dotted path stands for, imported.

    Args:
        path: such as `mypackage.models.mynet`.
        known: paths that are always allowed.

    Raises:
        LocalLearnError: only a file names this code, and it is not trusted.
        ImportError, AttributeError, ValueError: there is none.
    """
    trust = _TRUST.get()
    if path not in known:
        _OTHER_CODE.add(path)
    if trust is not None and path not in known and path not in trust.paths:
        if not trust.code:
            raise LocalLearnError(
                f"a file names the code {path!r}, which is neither a registered name nor typed by you: look at it, and"
                " add --trust-code (trust_code=True in Python) to import it."
            )
        trust.say(f"importing {path}, which a file names")
    found = resolve_name(path)
    if trust is not None:
        trust.paths.update({path, f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"})
    return found


def trust_option() -> list[str]:
    """`--trust-code`, where a command needs it to do again what this process did."""
    return ["--trust-code"] if _OTHER_CODE else []


@cache
def names(kind: str) -> Mapping[str, str]:
    """Each known name of a kind ("rules", "models", "data" or "loggers") to the dotted path of what it means."""
    points = sorted(entry_points(group=f"locallearn.{kind}"), key=lambda point: point.name)
    return MappingProxyType({point.name: f"{point.module}.{point.attr}" for point in points})


def path_of(kind: str, name: str) -> str:
    """The dotted path of what a name stands for; a dotted path is its own, and is not looked at.

    Raises:
        LocalLearnError: nothing has this name.
    """
    known = names(kind)
    path = known.get(name.lower(), name)
    if "." not in path:
        raise LocalLearnError(f"unknown {_SINGULAR[kind]} {name!r}; {did_you_mean(name, known)}")
    return path


def find(kind: str, name: str) -> Any:
    """What a name, or a dotted path such as `mypackage.models.mynet`, stands for.

    Raises:
        LocalLearnError: nothing has this name, or only a file names this code.
    """
    try:
        return load(path_of(kind, name), known=names(kind).values())
    except LocalLearnError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        raise LocalLearnError(f"{_SINGULAR[kind]} {name!r} cannot be imported: {error}.") from error


def call(kind: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call what a name stands for.

    Raises:
        LocalLearnError: nothing has this name, or it does not take these arguments.
    """
    function = find(kind, name)
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise LocalLearnError(f"{_SINGULAR[kind]} {name!r} is no function as it must be: {error}.") from error
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        if not any(f"unexpected keyword argument '{keyword}'" in str(error) for keyword in kwargs):
            raise
        hint = f"; did you mean torchvision:{name.rpartition('.')[2]}?" if name.startswith("torchvision.") else "."
        raise LocalLearnError(f"{_SINGULAR[kind]} {name!r} is no function as it must be: {error}{hint}") from error


_SINGULAR = {"rules": "rule", "models": "model", "data": "data set", "loggers": "logger", "losses": "loss"}

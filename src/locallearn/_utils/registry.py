"""Names that the command line knows, from entry points: ours and those of any installed package."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

from locallearn._utils.errors import LocalLearnError, did_you_mean


def names(kind: str) -> dict[str, str]:
    """Each known name of a kind ("rules", "models" or "data") to the dotted path of what it means."""
    points = sorted(entry_points(group=f"locallearn.{kind}"), key=lambda point: point.name)
    return {point.name: f"{point.module}.{point.attr}" for point in points}


def find(kind: str, name: str) -> Any:
    """What a name, or a dotted path such as `mypackage.models.mynet`, stands for.

    Raises:
        LocalLearnError: nothing has this name.
    """
    known = names(kind)
    path = known.get(name.lower(), name)
    if "." not in path:
        raise LocalLearnError(f"unknown {_SINGULAR[kind]} {name!r}; {did_you_mean(name, known)}")
    try:
        return resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise LocalLearnError(f"{_SINGULAR[kind]} {name!r} cannot be imported: {error}.") from None


def call(kind: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call what a name stands for.

    Raises:
        LocalLearnError: nothing has this name, or it does not take these arguments.
    """
    function = find(kind, name)
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise LocalLearnError(f"{_SINGULAR[kind]} {name!r} is no function as it must be: {error}.") from None
    return function(*args, **kwargs)


_SINGULAR = {"rules": "rule", "models": "model", "data": "data set"}

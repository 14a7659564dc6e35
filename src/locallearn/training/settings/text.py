"""Settings as text: YAML files, and rules as the command line writes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from locallearn._utils.errors import LocalLearnError, kind_of
from locallearn._utils.optional_imports import optional
from locallearn._utils.registry import find, names
from locallearn.rules import Rule


def as_yaml(settings: Any) -> str:
    """Settings as YAML, which `--config` reads."""
    return optional("yaml").safe_dump(plain_settings(settings), sort_keys=False)


def plain_settings(settings: Any) -> dict[str, Any]:
    """Settings by their names, with values as of `plain`.

    Raises:
        LocalLearnError: a value is none that a file of settings can hold.
    """
    found = {}
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        try:
            found[setting.name] = plain(value)
        except TypeError as error:
            raise LocalLearnError(
                f"{setting.name} of {type(settings).__name__} is {error}, which no file of settings can hold: use"
                " numbers, text, lists, dictionaries, and classes under @dataclass(frozen=True, kw_only=True)."
            ) from error
    return found


def with_new_defaults(saved: dict[str, Any], settings: Any) -> dict[str, Any]:
    """Plain settings of an earlier version, with the defaults of those that came later.

    Args:
        saved: as of `plain_settings`.
        settings: today's, of the same class.
    """
    filled = dict(saved)
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        inner = saved.get(setting.name)
        if setting.name not in saved and value == _default_of(setting):
            filled[setting.name] = plain(value)
        elif is_dataclass(value) and isinstance(inner, dict) and isinstance(inner.get("init_args"), dict):
            filled[setting.name] = {**inner, "init_args": with_new_defaults(inner["init_args"], value)}
    return filled


def plain(value: Any) -> Any:
    """Settings as dictionaries, lists, numbers and strings, with the path of each class.

    Raises:
        TypeError: a value is of another kind.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {"class_path": public_path(type(value)), "init_args": plain_settings(value)}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):  # of NumPy too
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(kind_of(value))


def difference_text(name: str, before: Any, now: Any) -> str:
    """In what two plain values of a setting differ, such as `optimizer.lr 0.1, not 0.05`."""
    return "; ".join(
        f"{part} {_class_of(one)[0] or one}, not {_class_of(other)[0] or other}"
        for part, one, other in differences_in(name, before, now)
    )


def differences_in(name: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two plain values of a setting differ: names and both values, within a class that both have."""
    (kind, arguments), (other_kind, others) = _class_of(before), _class_of(now)
    if kind and kind == other_kind:
        for inner in {**arguments, **others}:
            yield from differences_in(f"{name}.{inner}", arguments.get(inner), others.get(inner))
    elif before != now:
        yield name, before, now


def _class_of(value: Any) -> tuple[str, dict[str, Any]]:
    """The name and the settings of a class in its plain form; nothing of other values."""
    settings = value.get("init_args") if isinstance(value, dict) else None
    return (str(value.get("class_path")).rpartition(".")[2], settings) if isinstance(settings, dict) else ("", {})


def rule_text(rule: Rule) -> str:
    """A rule with its settings other than defaults, such as `hpff(man(auglocal(depth=3)))`."""
    settings = fields(rule) if is_dataclass(rule) else ()
    given = []
    for setting in settings:
        value = getattr(rule, setting.name)
        if value != _default_of(setting):
            given.append(_text(value) if setting.name == "rule" else f"{setting.name}={_text(value)}")
    name = _short_names().get(type(rule)) or public_path(type(rule))
    return f"{name}({', '.join(given)})" if given else name


@cache
def _short_names() -> dict[Any, str]:
    """Each registered rule to its name."""
    return {find("rules", name): name for name in names("rules")}


def _default_of(setting: Field[Any]) -> Any:
    return setting.default if setting.default_factory is MISSING else setting.default_factory()


def _text(value: Any) -> str:
    if isinstance(value, Rule):
        return rule_text(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    return repr(value)


def public_path(kind: type) -> str:
    """The shortest dotted path under which a class can be imported."""
    parts = kind.__module__.split(".")
    prefixes = [".".join(parts[: i + 1]) for i in range(len(parts))]
    public = (p for p in prefixes if getattr(sys.modules.get(p), kind.__name__, None) is kind)
    return f"{next(public, kind.__module__)}.{kind.__qualname__}"

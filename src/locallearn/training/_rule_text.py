"""A rule as the command line takes it."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from pkgutil import resolve_name
from typing import Any

from locallearn._names import names
from locallearn.rules import Rule
from locallearn.training._train import public_path


def rule_text(rule: Rule) -> str:
    """A rule with the settings that are not its defaults, such as `hpff(man(auglocal(depth=3)))`."""
    short = {resolve_name(path): name for name, path in names("rules").items()}
    settings = fields(rule) if is_dataclass(rule) else ()
    given = []
    for setting in settings:
        value = getattr(rule, setting.name)
        default = setting.default if setting.default_factory is MISSING else setting.default_factory()
        if value != default:
            given.append(_text(value) if setting.name == "rule" else f"{setting.name}={_text(value)}")
    name = short.get(type(rule)) or public_path(type(rule))
    return f"{name}({', '.join(given)})" if given else name


def _text(value: Any) -> str:
    if isinstance(value, Rule):
        return rule_text(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    return repr(value)

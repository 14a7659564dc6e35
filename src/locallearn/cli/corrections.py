"""The command that a user meant who wrote `--lr 0.01` for `--optimizer.lr 0.01`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from locallearn._utils.errors import nearest
from locallearn.cli.rule_syntax import CLASS_OPTIONS, normalised


def corrected(setting: str, arguments: Sequence[str], defaults: Mapping[str, Any]) -> str | None:
    """The whole command, if an unknown option names, or nearly names, a setting of a chosen class.

    Args:
        setting: the option's name after its last dot.
        arguments: of the command line, as typed.
        defaults: the class of each option that takes one, with its settings.
    """
    chosen = {name: defaults[name] for name in CLASS_OPTIONS if name in defaults}
    words = [word for argument in normalised(arguments) for word in argument.split("=", 1)]
    for name, value in pairwise(words):
        if name in chosen:
            chosen[name] = json.loads(value)
    full = {name: path for head, values in chosen.items() for name, path in _settings(head, values)}
    short = (name for name in full if name == _initials(setting) or setting == _initials(name))
    near = nearest(setting, full, likeness=0.7) or next(short, None)
    options = [argument.partition("=")[0].replace("-", "_") for argument in arguments]
    places = [i for i, option in enumerate(options) if re.fullmatch(rf"__([\w.]+\.)?{re.escape(setting)}", option)]
    if near is None or not places:
        return None
    at, rest = places[-1], list(arguments)
    if options[at] == full[near].replace("-", "_"):
        return None  # a setting of the default class, which a recipe or a file of settings replaces
    with_value = "=" not in rest[at] and at + 1 < len(rest) and not rest[at + 1].startswith("--")
    option, *value = [rest.pop(at) for _ in range(1 + with_value)]
    option = full[near] + option[len(options[at]) :]
    return f"locallearn {shlex.join([*rest, option, *value])}"  # settings of a class follow the choice of the class


def _initials(name: str) -> str:
    """`lr` of learning_rate."""
    return "".join(word[:1] for word in name.split("_"))


def _settings(head: str, values: Any) -> Iterator[tuple[str, str]]:
    """Each setting of a class and of the classes in it, those of the class itself last: they win."""
    settings = values.get("init_args", {}) if isinstance(values, Mapping) else {}
    for name, value in settings.items():
        yield from _settings(f"{head}.{name}", value)
    for name in settings:
        yield name, f"{head}.{name}"

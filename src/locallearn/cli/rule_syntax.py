"""Rules, optimizers and schedules as they are written on the command line: `hpff(man(auglocal(depth=3)))`."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pkgutil import resolve_name
from typing import Any, NoReturn

from locallearn._utils.errors import LocalLearnError, did_you_mean
from locallearn._utils.registry import names
from locallearn.training import plain

_TRAINING = "locallearn.training."
_CLASSES = {
    "--optimizer": {"sgd": _TRAINING + "SGD", "adamw": _TRAINING + "AdamW"},
    "--schedule": {
        "cosine": _TRAINING + "Cosine",
        "paper-cosine": _TRAINING + "PaperCosine",
        "constant": _TRAINING + "Constant",
    },
}
_NAMED = ("--rule", *_CLASSES)


def names_of(option: str) -> dict[str, str]:
    """Short names of an option's classes to their dotted paths."""
    return names("rules") if option == "--rule" else _CLASSES[option]


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Arguments as the parser takes them: `--data-dir` as `--data_dir`, `--rule dgl` as the class and its defaults.

    `--rule dgl --with hpff man` becomes the one rule `hpff(man(dgl))`.
    """
    result: list[str] = []
    for argument in wrapped(arguments):
        option, equals, value = argument.partition("=")
        if argument.startswith("--"):
            option = option.replace("-", "_").replace("__", "--", 1)
            result.append(option + equals + (_spelled_value(option, value) if equals else ""))
        else:
            result.append(_spelled_value(result[-1] if result else "", argument))
    return result


def wrapped(arguments: Sequence[str]) -> list[str]:
    """Arguments without `--with`: what stands behind it is written around `--rule` and its settings, outermost first.

    Raises:
        LocalLearnError: `--with` without a rule to wrap, or without a wrapper.
    """
    rest, options = [], {"--rule": [], "--with": []}
    settings: dict[str, str] = {}
    taking: list[str] | None = None
    if not any(argument == "--with" or argument.startswith("--with=") for argument in arguments):
        return list(arguments)
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        option, equals, value = argument.partition("=")
        if option in options:
            taking = options[option]
            taking += [value] if equals else []
        elif option.startswith("--rule.") and option != "--rule.help":
            settings[option.removeprefix("--rule.").replace("-", "_")] = value if equals else (waiting or [""]).pop(0)
        elif taking is not None and not argument.startswith("--"):
            taking.append(argument)
        else:
            taking = None
            rest.append(argument)
    if len(options["--rule"]) != 1 or not options["--with"]:
        raise LocalLearnError("--with puts wrappers around a rule: write --rule dgl --with hpff man.")
    specification = _read("--rule", options["--rule"][0])
    for name, text in settings.items():
        *path, last = name.split(".")
        target = specification
        for step in path:
            target = target["init_args"][step] if step in target["init_args"] else _refuse_setting(name)
        target["init_args"][last] = _scalar(text)
    for text in reversed(options["--with"]):
        specification = _read("--rule", text, inner=specification)
    return [*rest, "--rule", json.dumps(specification)]


def _spelled_value(option: str, value: str) -> str:
    if option in _NAMED and not value.lstrip().startswith("{"):
        return spelled_class(option, value)
    if option.removesuffix(".help") in _NAMED:
        return class_path(option.removesuffix(".help"), value)
    return value


def class_path(option: str, name: str) -> str:
    """The dotted path of a class that has a short name (`auglocal`), a name (`AugLocal`), or is a dotted path already.

    Raises:
        LocalLearnError: the name is unknown.
    """
    known = names_of(option)
    paths = {path.rpartition(".")[2]: path for path in known.values()} | known
    path = paths.get(name) or paths.get(name.lower(), name)
    if "." not in path:
        raise LocalLearnError(f"unknown {option.lstrip('-')} {name!r}; {did_you_mean(name, known)}")
    return path


def spelled_class(option: str, text: str) -> str:
    """From `auglocal`, `auglocal(depth=3)` or `hpff(man(auglocal(depth=3)))` to the class with its settings, as JSON.

    Defaults are spelled out, since the parser would else keep those of the class that was chosen before.

    Raises:
        LocalLearnError: a name is unknown, or what stands in brackets is no list of settings.
    """
    return json.dumps(_read(option, text))


_HYPHEN = "\u00b7"
"""Stands for the hyphens of names, such as dgl-original, while they are read as Python."""


def _read(option: str, text: str, *, inner: dict[str, Any] | None = None) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        return json.loads(text) if inner is None else _refuse_setting("class_path")
    try:
        node = ast.parse(re.sub(r"(?<=\w)-(?=[A-Za-z])", _HYPHEN, text.strip()), mode="eval").body
        return _specification(option, node, inner)
    except (SyntaxError, ValueError, TypeError) as error:
        if isinstance(error, LocalLearnError):
            raise
        name = text.partition("(")[0].strip()
        raise LocalLearnError(f"cannot read {text!r}: write settings as {name}(name=value, ...).") from None


def _specification(option: str, node: ast.expr, inner: dict[str, Any] | None = None) -> dict[str, Any]:
    """A name, or a call with settings; the one argument without a name is the rule that a wrapper wraps."""
    call = node if isinstance(node, ast.Call) else ast.Call(func=node, args=[], keywords=[])
    if len(call.args) + (inner is not None) > 1 or not isinstance(call.func, ast.Name | ast.Attribute):
        raise ValueError
    name = ast.unparse(call.func).replace(_HYPHEN, "-")
    path = class_path(option, name)
    try:
        kind = resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise LocalLearnError(f"{option.lstrip('-')} {name!r} cannot be imported: {error}.") from None
    settings = fields(kind) if isinstance(kind, type) and is_dataclass(kind) else ()
    if not settings and call.keywords:
        raise LocalLearnError(f"{name} has no settings: leave out the brackets.")
    given = {(keyword.arg or "**").replace(_HYPHEN, "_"): _value(option, keyword.value) for keyword in call.keywords}
    is_wrapper = any(field.name == "rule" for field in settings)
    if call.args and not is_wrapper:
        raise ValueError
    for argument in call.args:
        inner = _specification(option, argument)
    if inner is not None:
        if "rule" in given or not is_wrapper:
            wraps = "is given two rules to wrap" if is_wrapper else "wraps no rule: it stands alone"
            raise LocalLearnError(f"{name} {wraps}.")
        given["rule"] = inner
    needs = any(field.name == "rule" and field.default is field.default_factory is MISSING for field in settings)
    if needs and "rule" not in given:
        raise LocalLearnError(f"{name} wraps a rule: write {name}(dgl), or --rule dgl --with {name}.")
    return {"class_path": path, "init_args": _defaults(settings) | given}


def _defaults(settings: Sequence[Field[Any]]) -> dict[str, Any]:
    found = {field.name: field.default for field in settings if field.default is not MISSING}
    made = {field.name: field.default_factory() for field in settings if field.default_factory is not MISSING}
    return found | {name: plain(value) for name, value in made.items()}


def _value(option: str, node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id.replace(_HYPHEN, "-") not in names_of(option):
        return _scalar(node.id.replace(_HYPHEN, "-"))
    if isinstance(node, ast.Call | ast.Name | ast.Attribute):
        return _specification(option, node)
    if isinstance(node, ast.Tuple | ast.List):
        return [_value(option, part) for part in node.elts]
    value = ast.literal_eval(node)
    return value.replace(_HYPHEN, "-") if isinstance(value, str) else value


def _refuse_setting(name: str) -> NoReturn:
    raise LocalLearnError(f"cannot set {name!r} there: write the rule out, as in hpff(man(auglocal(depth=3))).")


def _scalar(text: str) -> Any:
    """A setting as it is written on the command line: a number, a list, true, or a word."""
    try:
        return ast.literal_eval({"true": "True", "false": "False", "null": "None"}.get(text, text))
    except (SyntaxError, ValueError):
        return text


def all_settings() -> set[str]:
    """Names of the settings of all classes that have a short name."""
    paths = [path for option in _NAMED for path in names_of(option).values()]
    return {field.name for kind in map(resolve_name, paths) if isinstance(kind, type) for field in fields(kind)}

"""The command line's parser: short names for classes, and errors that name the nearest valid word."""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from pkgutil import resolve_name
from typing import Any, NoReturn

import jsonargparse

from locallearn._errors import LocalLearnError, did_you_mean
from locallearn._names import names
from locallearn.rules import Rule
from locallearn.training import OptimizerSettings, Schedule

jsonargparse.set_parsing_settings(subclasses_enabled=[OptimizerSettings, Schedule])

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


class HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions."""


class Parser(jsonargparse.ArgumentParser):
    """An argument parser whose errors are one sentence."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, formatter_class=HelpFormatter, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Tell what is wrong, in one sentence, and exit with 2."""
        super().exit(2, f"error: {self._sentence(str(ex or message))}\n")

    def _sentence(self, message: str) -> str:
        return self._cause(message) or " ".join(line.strip() for line in message.splitlines())

    def _cause(self, message: str) -> str | None:
        if found := re.search(r"Literal\[(.*?)\]. Got value: (.*)", message):
            choices = [choice.strip("' ") for choice in found[1].split(",")]
            return f"{self._key(message)}{found[2]!r} is not valid; {did_you_mean(found[2], choices)}"
        if found := re.search(r"Expected an? <class '(int|float|bool)'>. Got value: (.*)", message):
            kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
            return f"{self._key(message)}{found[2]!r} is not {kinds[found[1]]}."
        if found := re.search(r"required: (.*)", message):
            missing = ", ".join(name.rpartition(".")[2].upper() for name in found[1].split(", "))
            return f"{missing} is missing: see --help."
        if found := re.search(r"[Uu]nrecognized arguments: --?([\w.-]+)", message):
            options = [option.lstrip("-") for action in self._actions for option in action.option_strings]
            return f"unknown option --{found[1]}; {did_you_mean(found[1], options)}"
        if found := re.search(r"Option '(\w+)' is not accepted|Key '(\w+)' is not expected", message):
            setting = found[1] or found[2]
            return f"unknown setting {setting!r}; {did_you_mean(setting, _all_settings())}"
        if found := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            return f"unknown command {found[1]!r}; {did_you_mean(found[1], re.findall(r'[a-z_]+', found[2]))}"
        return None

    @staticmethod
    def _key(message: str) -> str:
        found = re.findall(r'[Kk]ey "([\w.]+)"', message)
        return f"--{'.'.join(found)}: " if found else ""


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Arguments as the parser takes them: `--data-dir` as `--data_dir`, `--rule dgl` as the class and its defaults."""
    result: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if argument.startswith("--"):
            option = option.replace("-", "_").replace("__", "--", 1)
            result.append(option + equals + (_spelled_value(option, value) if equals else ""))
        else:
            result.append(_spelled_value(result[-1] if result else "", argument))
    return result


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
    """From `auglocal` or `auglocal(depth=3)` to the class with all its settings, as JSON.

    Defaults are spelled out, since the parser would else keep those of the class that was chosen before.

    Raises:
        LocalLearnError: the name is unknown, or what stands in brackets is no list of settings.
    """
    name = text.partition("(")[0].strip()
    path = class_path(option, name)
    try:
        kind = resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise LocalLearnError(f"{option.lstrip('-')} {name!r} cannot be imported: {error}.") from None
    try:
        call = ast.parse("f" + (text[len(name) :].strip() or "()"), mode="eval").body
        assert isinstance(call, ast.Call)
        assert not call.args
        given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    except (SyntaxError, ValueError, AssertionError):
        raise LocalLearnError(f"cannot read {text!r}: write settings as {name}(name=value, ...).") from None
    settings = fields(kind) if isinstance(kind, type) and is_dataclass(kind) else ()
    defaults = {field.name: field.default for field in settings if field.default is not MISSING}
    return json.dumps({"class_path": path, "init_args": defaults | given})


def _all_settings() -> set[str]:
    """Names of the settings of all classes that have a short name."""
    paths = [path for option in _NAMED for path in names_of(option).values()]
    return {field.name for kind in map(resolve_name, paths) if isinstance(kind, type) for field in fields(kind)}


def parse_rule(text: str) -> Rule:
    """A rule from its text, such as `auglocal(depth=3)`."""
    parser = Parser(prog="locallearn")
    parser.add_argument("--rule", type=Rule)
    return parser.instantiate(parser.parse_args(["--rule", spelled_class("--rule", text)])).rule

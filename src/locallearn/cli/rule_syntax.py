"""The rule language of the command line: `hpff(man(auglocal(depth=3)))` becomes a class with its settings.

A text is a short name, a class name or a dotted path, with settings in brackets as in Python. The rule that a wrapper
wraps is its one argument without a name. Optimizers and schedules are written in the same way.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from locallearn._utils.errors import LocalLearnError, did_you_mean
from locallearn._utils.registry import load, names
from locallearn.rules import Rule
from locallearn.training import OptimizerSettings, Schedule, plain, public_path

_TRAINING = "locallearn.training."
_CLASSES = {
    "--optimizer": {"sgd": _TRAINING + "SGD", "adamw": _TRAINING + "AdamW"},
    "--schedule": {
        "cosine": _TRAINING + "Cosine",
        "paper-cosine": _TRAINING + "PaperCosine",
        "imagenet-cosine": _TRAINING + "ImageNetCosine",
        "epoch-decay": _TRAINING + "EpochDecay",
        "step-decay": _TRAINING + "StepDecay",
        "constant": _TRAINING + "Constant",
        "torch": _TRAINING + "TorchSchedule",
    },
}
CLASS_OPTIONS = ("--rule", *_CLASSES)

_HYPHEN = "\u00b7"
"""Replaces hyphens in names such as dgl-original: Python allows this character in a name."""

_DEEPEST = 5

_WORDS = {"true": True, "false": False, "null": None}


def short_names(option: str) -> Mapping[str, str]:
    """Short names of an option's classes to their dotted paths."""
    return names("rules") if option == "--rule" else _CLASSES[option]


def owners(options: Iterable[str] = CLASS_OPTIONS) -> dict[str, list[str]]:
    """Each setting of a class that has a short name in some options, to these short names."""
    classes = {name: path for option in options for name, path in short_names(option).items()}
    result: dict[str, list[str]] = {}
    for name, path in classes.items():
        for field in _fields(load(path, known=classes.values())):
            result.setdefault(field.name, []).append(name)
    return result


def load_class(path: str) -> Any:
    """A class of rules, optimizers or schedules, or a function that makes one; see `registry.load`.

    A file may name those with a short name and all classes that are imported already.
    """
    known = {path for option in CLASS_OPTIONS for path in short_names(option).values()}
    kinds = [] if path in known else [Rule, OptimizerSettings, Schedule]
    for kind in kinds:  # the list grows
        known |= {public_path(kind), f"{kind.__module__}.{kind.__qualname__}"}
        kinds += kind.__subclasses__()
    return load(path, known=known)


def normalised(arguments: Sequence[str]) -> list[str]:
    """Arguments as the parser takes them: `--data-dir` as `--data_dir`, `--rule dgl` as its class with all settings."""
    result: list[str] = []
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            option = f"--{option[2:].replace('-', '_')}"
            result.append(option + equals + (_normalised_value(option, value) if equals else ""))
        else:
            result.append(_normalised_value(result[-1] if result else "", argument))
    _refuse_settings_before_their_class(arguments, result)
    return result


def refuse_twice(arguments: Sequence[str]) -> None:
    """Refuse an option given twice, of which the parser would drop the first: all but `--config` and `--freeze+`."""
    options = [word.partition("=")[0].replace("_", "-") for word in arguments if re.match("--?[A-Za-z]", word)]
    for option in options:
        if options.count(option) > 1 and option != "--config" and not option.endswith("+"):
            raise LocalLearnError(
                f"{option} is given twice, and the last alone would count: give all its values at once, or leave one"
                " out."
            )


def recipe_first(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with `--recipe NAME` before all others, so that these win."""
    words = [word for argument in arguments for word in _split(argument)]
    if "--recipe" not in words:
        return list(arguments)
    place = words.index("--recipe")
    option, words = words[place : place + 2], words[:place] + words[place + 2 :]
    return [*words[:1], *option, *words[1:]]


def _split(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--recipe=") else [argument]


def _refuse_settings_before_their_class(typed: Sequence[str], normal: Sequence[str]) -> None:
    """Refuse `--rule.depth 3 --rule auglocal`: the choice of a class begins with its defaults."""
    options = [argument.partition("=")[0] for argument in normal]
    for place, option in enumerate(options):
        head = option.partition(".")[0]
        chosen = options.index(head, place) if head in CLASS_OPTIONS and head in options[place:] else place
        if chosen > place and not option.endswith(".help") and option not in options[chosen:]:
            raise LocalLearnError(
                f"{typed[place]} stands before {head}, which would undo it: write {head} first, and {option} after it."
            )


def _normalised_value(option: str, value: str) -> str:
    if option in CLASS_OPTIONS and not value.lstrip().startswith("{"):
        return class_json(option, value)
    if option.endswith(".help") and option.removesuffix(".help") in CLASS_OPTIONS:
        return class_path(option.removesuffix(".help"), value)
    return value


def class_path(option: str, name: str) -> str:
    """The dotted path of a class: from its short name (`auglocal`), its name (`AugLocal`) or its dotted path.

    Raises:
        LocalLearnError: the name is unknown.
    """
    known = short_names(option)
    paths = {path.rpartition(".")[2]: path for path in known.values()} | {**known}
    path = paths.get(name) or paths.get(name.lower(), name)
    if "." not in path:
        raise LocalLearnError(f"unknown {option.lstrip('-')} {name!r}; {did_you_mean(name, known)}")
    return path


def class_json(option: str, text: str) -> str:
    """The class that a text such as `hpff(man(auglocal(depth=3)))` means, with its settings, as the parser's JSON.

    The JSON includes the defaults: without them, the parser would use those of the class that was chosen before.

    Raises:
        LocalLearnError: a name is unknown, or the brackets hold no list of settings.
    """
    try:
        call = ast.parse(re.sub(r"(?<=\w)-(?=[A-Za-z])", _HYPHEN, text.strip()), mode="eval").body
        if isinstance(call, ast.Tuple):
            raise LocalLearnError(f"cannot read {text!r}: {_one_alone(option)}.")
        if _nesting(call) > _DEEPEST:  # each level doubles the parser's time
            raise LocalLearnError(f"cannot read {text!r}: brackets nest at most {_DEEPEST} deep.")
        return json.dumps(_read_class(option, call))
    except LocalLearnError:
        raise
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise LocalLearnError(f"cannot read {text!r}: {_remedy(option, text.strip())}.") from error


def _remedy(option: str, text: str) -> str:
    """What to do about a text that cannot be read."""
    if missing := text.count("(") - text.count(")"):
        return "a closing bracket is missing" if missing > 0 else "it has a closing bracket too many"
    if re.match(r"[\w.-]+\s+[\w.-]+\s*(\(|$)", text):
        return _one_alone(option)
    name = re.split(r"[^\w.-]", text)[0]
    return f"write settings as {name if name[:1].isalpha() else 'auglocal'}(name=value, ...)"


def _one_alone(option: str) -> str:
    several = "; compare takes several, separated by spaces, as --rules bp dgl" if option == "--rule" else ""
    return f"it names more than one {option[2:]}: give one{several}"


def _nesting(node: ast.AST) -> int:
    return isinstance(node, ast.Call) + max(map(_nesting, ast.iter_child_nodes(node)), default=0)


def _read_class(option: str, node: ast.expr) -> dict[str, Any]:
    """A class from its name, or from a call of it with settings."""
    call = node if isinstance(node, ast.Call) else ast.Call(func=node, args=[], keywords=[])
    if not isinstance(call.func, ast.Name | ast.Attribute):
        raise ValueError
    name = ast.unparse(call.func).replace(_HYPHEN, "-")
    path = class_path(option, name)
    try:
        settings = _fields(load_class(path))
    except LocalLearnError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        raise LocalLearnError(f"{option.lstrip('-')} {name!r} cannot be imported: {error}.") from error
    if not settings and call.keywords:
        raise LocalLearnError(f"{name} has no settings: leave out the brackets.")
    given = {(word.arg or "**").replace(_HYPHEN, "_"): _read_value(option, word.value) for word in call.keywords}
    inner = next((field for field in settings if field.name == "rule"), None)
    if call.args:
        if inner is None or len(call.args) > 1:
            raise ValueError
        if "rule" in given:
            raise LocalLearnError(f"{name} is given two rules to wrap.")
        given["rule"] = _read_class(option, call.args[0])
    if inner is not None and "rule" not in given and inner.default is inner.default_factory is MISSING:
        raise LocalLearnError(f"{name} wraps a rule: write {name}(dgl).")
    return {"class_path": path, "init_args": _defaults(settings) | given}


def _read_value(option: str, node: ast.expr) -> Any:
    """A setting: a literal, a bare word, a class, or a list of these."""
    if isinstance(node, ast.Name):
        word = node.id.replace(_HYPHEN, "-")
        if word not in short_names(option):
            return _WORDS.get(word, word)
    if isinstance(node, ast.Call | ast.Name | ast.Attribute):
        return _read_class(option, node)
    if isinstance(node, ast.Tuple | ast.List):
        return [_read_value(option, part) for part in node.elts]
    value = ast.literal_eval(node)
    return value.replace(_HYPHEN, "-") if isinstance(value, str) else value


def _fields(kind: object) -> tuple[Field[Any], ...]:
    """The settings of a class; a function that makes a rule has none."""
    return fields(kind) if isinstance(kind, type) and is_dataclass(kind) else ()


def _defaults(settings: Sequence[Field[Any]]) -> dict[str, Any]:
    values = {field.name: field.default for field in settings if field.default is not MISSING}
    made = {field.name: field.default_factory() for field in settings if field.default_factory is not MISSING}
    return values | {name: plain(value) for name, value in made.items()}

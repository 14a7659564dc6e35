"""The command line's parser; its errors are one sentence and suggest the nearest valid name."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from jsonargparse import _util

from locallearn._utils.atomic_files import read_yaml
from locallearn._utils.errors import LocalLearnError, did_you_mean, nearest
from locallearn.cli.corrections import corrected
from locallearn.cli.rule_syntax import CLASS_OPTIONS, class_json, load_class, owners
from locallearn.rules import Rule
from locallearn.training import OptimizerSettings, Schedule

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "tuple": "a list",
}

_ELSEWHERE = {"arch": "model", "network": "model", "cuda": "device", "gpu": "device"}
"""What other programs call some options."""

jsonargparse.set_parsing_settings(subclasses_enabled=[OptimizerSettings, Schedule])
_util.check_import_path = load_class  # jsonargparse asks this before it imports what any value names


class HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions."""


_NOT_OF_FILES = ("config", "out", "name", "resume", "from", "recipe", "seeds")
"""Options that a file of settings cannot have."""


class SettingsFile(jsonargparse.ActionConfigFile):
    """Reads settings from a YAML file, once it is known to be one."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        for name in read_yaml(Path(values)).keys() & set(_NOT_OF_FILES):
            raise LocalLearnError(
                f"{values}: a file of settings cannot choose recipes, seeds or files of runs; leave out {name}."
            )
        of, parser.of = parser.of, str(values)
        try:
            super().__call__(parser, cfg, values, option_string)
        finally:
            parser.of = of


class Parser(jsonargparse.ArgumentParser):
    """An argument parser whose errors are one sentence.

    Args:
        of: the settings file, or the text, that is parsed instead of a command line; errors are raised and name it.
    """

    def __init__(self, *args: Any, of: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, formatter_class=HelpFormatter, **kwargs)
        self.of = of

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error as one sentence and exit with 2."""
        own = next((cause for cause in _causes(ex) if isinstance(cause, LocalLearnError)), None)
        message = str(ex or message)
        sentence = self._sentence(message) if own is None else str(own)
        if own is not None and sentence.startswith("--") and (key := self._key(message)):  # from the parser of a class
            sentence = f"{key.removesuffix(': ')}.{sentence.removeprefix('--')}"
        if not self.exit_on_error:  # the parser of a class: the one of its option knows the rest of the name
            raise LocalLearnError(sentence) from ex
        if self.of is not None:
            raise LocalLearnError(f"{self.of}: {sentence.removeprefix('--')}") from ex
        super().exit(2, f"error: {sentence}\n")

    def dump(self, namespace: Any, *args: Any, **kwargs: Any) -> str:
        """What `--print_config` prints: a file of settings, as `--config` takes it."""
        settings = namespace.clone()
        if (run := settings.get("resume")) is not None:
            raise LocalLearnError(
                f"--print_config prints the settings of a new run: leave out --resume; {run}/settings.yaml has that"
                " run's."
            )
        if any(isinstance(action, SettingsFile) for action in self._actions):  # a command, and no class of a setting
            for name in _NOT_OF_FILES:
                settings.pop(name, None)
        return super().dump(settings, *args, **kwargs)

    def _sentence(self, message: str) -> str:
        return self._cause(message) or " ".join(line.strip() for line in message.splitlines())

    def _cause(self, message: str) -> str | None:
        if match := re.search(r"Expected a typing\.Literal\[(.*?)\].*(?:Got|Given) value: (.*)", message, re.DOTALL):
            choices = [choice.strip("' ") for choice in match[1].split(",")]
            return f"{self._key(message)}{match[2]!r} is not valid; {did_you_mean(match[2], choices)}"
        kinds = [_WORDS[kind] for kind in re.findall(r"Expected (?:an? )?<class '(\w+)'>", message) if kind in _WORDS]
        if kinds and (match := re.search(r"(?:Got|Given) value: (?:NestedArg\(.*val=')?(.*?)(?:'\))?$", message)):
            as_list = f": write it as [{match[1].strip('[]')}]" if "a list" in kinds else ""
            return f"{self._key(message)}{match[1]!r} is not {' or '.join(dict.fromkeys(kinds))}{as_list}."
        if match := re.search(r"argument (-[\w-]+).*: expected (?:one|at least one) argument", message):
            return f"{match[1]} needs a value: see --help."
        if match := re.search(r"required: (.*)", message):
            options, names = set(_options_of(self)), [name.rpartition(".")[2] for name in match[1].split(", ")]
            missing = [f"--{name}" if f"--{name}" in options else name.upper() for name in names]
            return f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing: see --help."
        if match := re.search(r"[Uu]nrecognized arguments: (-*)(.+)", message):
            word = match[2].partition(" ")[0].partition("=")[0]
            if match[1]:
                return f"unknown option {match[1]}{word}; {self._meant(word)}"
            return f"unknown word {word!r}; no option before it takes it: see --help."
        if match := re.search(r"Option '(\w+)' is not accepted|Key '(\w+)' is not expected", message):
            return f"unknown setting {match[match.lastindex or 1]!r}; {self._meant(match[match.lastindex or 1])}"
        if match := re.search(r"Subcommand '\w+' does not accept option '([\w.]+)'", message):
            _, command = COMMAND.get() or ((), self)
            return f"unknown setting {match[1]!r} in the file of settings; {command._meant(match[1])}"
        if match := re.search(r"Expected a dot import path string: (.*)", message):
            return f"{self._key(message)}{match[1]!r} is no dotted path of a class, as locallearn.DGL is."
        if match := re.search(r"expected \"[\w.]*subcommand\" to be one of {(.*)}", message):
            return f"give one of {match[1].replace(',', ', ')}: see --help."
        if match := re.search(r"(?:argument (--\w+))?: invalid choice: '([^']*)' \(choose from (.*)\)", message):
            near = did_you_mean(match[2], re.findall(r"[a-z_]+", match[3]))
            return f"unknown {match[1] or 'command'} {match[2]!r}; {near}"
        if key := self._key(message):
            reason = " ".join(message.partition(":")[2].split()).rstrip(".")
            return f"{key}its value cannot be read ({reason})."
        return None

    def _meant(self, option: str) -> str:
        """The end of a sentence: an option nearly of this name, or where there is a setting of it."""
        options = [name.lstrip("-") for action in self._actions for name in action.option_strings]
        names = [name for name in options if re.fullmatch(r"(?!help$)\w\w+", name)]
        of_command = self.exit_on_error and "." not in option
        if of_command and (near := nearest(_ELSEWHERE.get(option, option), names, likeness=0.8)):
            return f"did you mean {near!r}?"
        setting, (arguments, parser) = option.rpartition(".")[2], COMMAND.get() or ((), self)
        defaults = {name: action.default for action in parser._actions for name in action.option_strings}
        if command := corrected(setting, arguments, defaults):
            return f"did you mean {command}?"
        having = owners(head for head in CLASS_OPTIONS if head in defaults or f"{head}s" in defaults)
        if setting in having:
            return f"only these have it: {', '.join(having[setting])}."
        return "see --help." if of_command and nearest(option, names) is None else did_you_mean(option, names)

    @staticmethod
    def _key(message: str) -> str:
        match = re.findall(r'[Kk]ey "([\w.]+)"', message)
        return f"--{'.'.join(match)}: " if match else ""


COMMAND: ContextVar[tuple[Sequence[str], Parser] | None] = ContextVar("COMMAND", default=None)
"""The arguments as the user typed them, and their command's parser; settings of classes have parsers of their own."""


def typed_options() -> set[str]:
    """The options that the user typed, without their values, as `--seed` or `--optimizer.lr`."""
    arguments, _ = COMMAND.get() or ((), None)
    return {argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")}


def _options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a parser and of its commands."""
    for action in parser._actions:
        yield from action.option_strings
        for inner in action.choices.values() if isinstance(action.choices, dict) else ():
            yield from _options_of(inner)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def parse_rule(text: str) -> Rule:
    """A rule from its text, such as `auglocal(depth=3)`."""
    parser = Parser(prog="locallearn", of=text)
    parser.add_argument("--rule", type=Rule)
    return parser.instantiate(parser.parse_args(["--rule", class_json("--rule", text)])).rule

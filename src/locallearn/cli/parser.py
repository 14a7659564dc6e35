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
from locallearn._utils.errors import LocalLearnError, did_you_mean
from locallearn.cli.corrections import corrected
from locallearn.cli.rule_syntax import class_json, load_class, owners
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
        super().__call__(parser, cfg, values, option_string)


class Parser(jsonargparse.ArgumentParser):
    """An argument parser whose errors are one sentence.

    Args:
        of_file: the settings file that is parsed instead of a command line; errors are raised and name it.
    """

    def __init__(self, *args: Any, of_file: Path | None = None, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, formatter_class=HelpFormatter, **kwargs)
        self.of_file = of_file

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error as one sentence and exit with 2."""
        own = next((cause for cause in _causes(ex) if isinstance(cause, LocalLearnError)), None)
        sentence = self._sentence(str(own or ex or message))
        if self.of_file is not None:
            raise LocalLearnError(f"{self.of_file}: {sentence.removeprefix('--')}") from ex
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
        if match := re.search(r"Literal\[(.*?)\]. Got value: (.*)", message):
            choices = [choice.strip("' ") for choice in match[1].split(",")]
            return f"{self._key(message)}{match[2]!r} is not valid; {did_you_mean(match[2], choices)}"
        kinds = [_WORDS[kind] for kind in re.findall(r"Expected (?:an? )?<class '(\w+)'>", message) if kind in _WORDS]
        if kinds and (match := re.search(r"(?:Got|Given) value: (?:NestedArg\(.*val=')?(.*?)(?:'\))?$", message)):
            return f"{self._key(message)}{match[1]!r} is not {' or '.join(dict.fromkeys(kinds))}."
        if match := re.search(r"required: (.*)", message):
            missing = ", ".join(name.rpartition(".")[2].upper() for name in match[1].split(", "))
            return f"{missing} is missing: see --help."
        if match := re.search(r"[Uu]nrecognized arguments: --?([\w.-]+)", message):
            options = [option.lstrip("-") for action in self._actions for option in action.option_strings]
            return f"unknown option --{match[1]}; {self._meant(match[1]) or did_you_mean(match[1], options)}"
        if match := re.search(r"Option '(\w+)' is not accepted|Key '(\w+)' is not expected", message):
            setting = match[1] or match[2]
            return f"unknown setting {setting!r}; {self._meant(setting) or did_you_mean(setting, owners())}"
        if match := re.search(r"expected \"[\w.]*subcommand\" to be one of {(.*)}", message):
            return f"give one of {match[1].replace(',', ', ')}: see --help."
        if match := re.search(r"(?:argument (--\w+))?: invalid choice: '([^']*)' \(choose from (.*)\)", message):
            near = did_you_mean(match[2], re.findall(r"[a-z_]+", match[3]))
            return f"unknown {match[1] or 'command'} {match[2]!r}; {near}"
        if key := self._key(message):
            reason = " ".join(message.partition(":")[2].split()).rstrip(".")
            return f"{key}its value cannot be read ({reason})."
        return None

    def _meant(self, option: str) -> str | None:
        """The command that has the setting of this name where it belongs, or who has such a setting."""
        setting, (arguments, parser) = option.rpartition(".")[2], COMMAND.get() or ((), self)
        defaults = {name: action.default for action in parser._actions for name in action.option_strings}
        if command := corrected(setting, arguments, defaults):
            return f"did you mean {command}?"
        return f"only these have it: {', '.join(owners()[setting])}." if setting in owners() else None

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


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def parse_rule(text: str) -> Rule:
    """A rule from its text, such as `auglocal(depth=3)`."""
    parser = Parser(prog="locallearn")
    parser.add_argument("--rule", type=Rule)
    return parser.instantiate(parser.parse_args(["--rule", class_json("--rule", text)])).rule

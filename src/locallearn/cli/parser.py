"""The command line's parser; its errors are one sentence and suggest the nearest valid name."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from jsonargparse import _util

from locallearn._utils.errors import LocalLearnError, did_you_mean
from locallearn.cli.rule_syntax import all_settings, class_json, load_class
from locallearn.rules import Rule
from locallearn.training import OptimizerSettings, Schedule

jsonargparse.set_parsing_settings(subclasses_enabled=[OptimizerSettings, Schedule])
_util.check_import_path = load_class  # jsonargparse asks this before it imports what any value names


class HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions."""


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

    def _sentence(self, message: str) -> str:
        return self._cause(message) or " ".join(line.strip() for line in message.splitlines())

    def _cause(self, message: str) -> str | None:
        if match := re.search(r"Literal\[(.*?)\]. Got value: (.*)", message):
            choices = [choice.strip("' ") for choice in match[1].split(",")]
            return f"{self._key(message)}{match[2]!r} is not valid; {did_you_mean(match[2], choices)}"
        if match := re.search(r"Expected an? <class '(int|float|bool)'>. Got value: (.*)", message):
            kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
            return f"{self._key(message)}{match[2]!r} is not {kinds[match[1]]}."
        if match := re.search(r"required: (.*)", message):
            missing = ", ".join(name.rpartition(".")[2].upper() for name in match[1].split(", "))
            return f"{missing} is missing: see --help."
        if match := re.search(r"[Uu]nrecognized arguments: --?([\w.-]+)", message):
            if match[1] == "with":
                return "--with is gone: write the wrappers around the rule, as in --rule 'hpff(man(dgl))'."
            options = [option.lstrip("-") for action in self._actions for option in action.option_strings]
            return f"unknown option --{match[1]}; {did_you_mean(match[1], options)}"
        if match := re.search(r"Option '(\w+)' is not accepted|Key '(\w+)' is not expected", message):
            setting = match[1] or match[2]
            return f"unknown setting {setting!r}; {did_you_mean(setting, all_settings())}"
        if match := re.search(r"Problems parsing config: (.*)", message):
            reason = re.sub(r' in "<unicode string>"', "", match[1]).rstrip(".")
            return f"the file given by --config is not valid YAML: {reason}."
        if match := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            return f"unknown command {match[1]!r}; {did_you_mean(match[1], re.findall(r'[a-z_]+', match[2]))}"
        return None

    @staticmethod
    def _key(message: str) -> str:
        match = re.findall(r'[Kk]ey "([\w.]+)"', message)
        return f"--{'.'.join(match)}: " if match else ""


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

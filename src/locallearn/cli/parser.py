"""The command line's parser; its errors are one sentence and suggest the nearest valid name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from jsonargparse import _util

from locallearn._utils.atomic_files import read_yaml
from locallearn._utils.errors import LocalLearnError
from locallearn.cli.error_sentences import key_of, sentence_of
from locallearn.cli.rule_syntax import class_json, load_class
from locallearn.rules import Rule
from locallearn.training import OptimizerSettings, Schedule

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
        sentence = sentence_of(message, self) if own is None else str(own)
        if own is not None and sentence.startswith("--") and (key := key_of(message)):  # from the parser of a class
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

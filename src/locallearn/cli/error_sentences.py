"""What a user did wrong, in one sentence, by the message of the library that reads the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jsonargparse

from locallearn._utils.errors import did_you_mean, nearest
from locallearn.cli.corrections import corrected
from locallearn.cli.rule_syntax import CLASS_OPTIONS, owners
from locallearn.cli.typed_command import COMMAND

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "tuple": "a list",
}

_ELSEWHERE = {"arch": "model", "network": "model", "cuda": "device", "gpu": "device"}
"""What other programs call some options."""


def sentence_of(message: str, parser: jsonargparse.ArgumentParser) -> str:
    """The sentence for a message of a parser; where none fits, the message on one line."""
    for pattern, sentence in _SENTENCES.items():
        if match := re.search(pattern, message):
            return sentence(_Mistake(match, key_of(message), parser))
    if key := key_of(message):
        reason = " ".join(message.partition(":")[2].split()).rstrip(".")
        return f"{key}its value cannot be read ({reason})."
    return " ".join(line.strip() for line in message.splitlines())


def key_of(message: str) -> str:
    """The option that a message names, as a beginning of a sentence: `--optimizer.lr: `, or nothing."""
    match = re.findall(r'[Kk]ey "([\w.]+)"', message)
    return f"--{'.'.join(match)}: " if match else ""


class _Mistake(NamedTuple):
    """What a pattern found in a message, the beginning of the sentence, and the parser whose message it is."""

    found: re.Match[str]
    key: str
    parser: jsonargparse.ArgumentParser

    def meant(self, option: str) -> str:
        """The end of a sentence: an option nearly of this name, or where there is a setting of it."""
        options = [name.lstrip("-") for action in self.parser._actions for name in action.option_strings]
        names = [name for name in options if re.fullmatch(r"(?!help$)\w\w+", name)]
        of_command = self.parser.exit_on_error and "." not in option
        if of_command and (near := nearest(_ELSEWHERE.get(option, option), names, likeness=0.8)):
            return f"did you mean {near!r}?"
        setting, (arguments, parser) = option.rpartition(".")[2], COMMAND.get() or ((), self.parser)
        defaults = {name: action.default for action in parser._actions for name in action.option_strings}
        if command := corrected(setting, arguments, defaults):
            return f"did you mean {command}?"
        having = owners(head for head in CLASS_OPTIONS if head in defaults or f"{head}s" in defaults)
        if setting in having:
            return f"only these have it: {', '.join(having[setting])}."
        return "see --help." if of_command and nearest(option, names) is None else did_you_mean(option, names)


def _no_choice(mistake: _Mistake) -> str:
    choices, value = mistake.found.groups()
    names = [choice.strip("' ") for choice in choices.split(",")]
    return f"{mistake.key}{value!r} is not valid; {did_you_mean(value, names)}"


def _wrong_kind(mistake: _Mistake) -> str:
    classes, value = re.findall(r"Expected (?:an? )?<class '(\w+)'>", mistake.found[0]), mistake.found[1]
    kinds = dict.fromkeys(_KINDS[name] for name in classes if name in _KINDS)
    as_list = f": write it as [{value.strip('[]')}]" if "a list" in kinds else ""
    return f"{mistake.key}{value!r} is not {' or '.join(kinds)}{as_list}."


def _no_value(mistake: _Mistake) -> str:
    return f"{mistake.found[1]} needs a value: see --help."


def _missing(mistake: _Mistake) -> str:
    options = set(_options_of(mistake.parser))
    names = [name.rpartition(".")[2] for name in mistake.found[1].split(", ")]
    missing = [f"--{name}" if f"--{name}" in options else name.upper() for name in names]
    return f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing: see --help."


def _unknown_word(mistake: _Mistake) -> str:
    dashes, words = mistake.found.groups()
    word = words.partition(" ")[0].partition("=")[0]
    if dashes:
        return f"unknown option {dashes}{word}; {mistake.meant(word)}"
    return f"unknown word {word!r}; no option before it takes it: see --help."


def _unknown_setting(mistake: _Mistake) -> str:
    name = mistake.found[1]
    return f"unknown setting {name!r}; {mistake.meant(name)}"


def _unknown_in_file(mistake: _Mistake) -> str:
    _, command = COMMAND.get() or ((), mistake.parser)
    name = mistake.found[1]
    return f"unknown setting {name!r} in the file of settings; {mistake._replace(parser=command).meant(name)}"


def _no_class(mistake: _Mistake) -> str:
    return f"{mistake.key}{mistake.found[1]!r} is no dotted path of a class, as locallearn.DGL is."


def _no_command(mistake: _Mistake) -> str:
    return f"give one of {mistake.found[1].replace(',', ', ')}: see --help."


def _unknown_choice(mistake: _Mistake) -> str:
    option, value, choices = mistake.found.groups()
    return f"unknown {option or 'command'} {value!r}; {did_you_mean(value, re.findall('[a-z_]+', choices))}"


_GIVEN = r"(?:Got|Given) value: (?:NestedArg\([^\n]*val=')?([^\n]*?)(?:'\))?$"
_SENTENCES: Mapping[str, Callable[[_Mistake], str]] = {
    r"(?s)Expected a typing\.Literal\[(.*?)\].*(?:Got|Given) value: (.*)": _no_choice,
    rf"(?s)Expected (?:an? )?<class '(?:{'|'.join(_KINDS)})'>.*{_GIVEN}": _wrong_kind,
    r"argument (-[\w-]+).*: expected (?:one|at least one) argument": _no_value,
    r"required: (.*)": _missing,
    r"[Uu]nrecognized arguments: (-*)(.+)": _unknown_word,
    r"(?:Option|Key) '(\w+)' is not (?:accepted|expected)": _unknown_setting,
    r"Subcommand '\w+' does not accept option '([\w.]+)'": _unknown_in_file,
    r"Expected a dot import path string: (.*)": _no_class,
    r"expected \"[\w.]*subcommand\" to be one of {(.*)}": _no_command,
    r"(?:argument (--\w+))?: invalid choice: '([^']*)' \(choose from (.*)\)": _unknown_choice,
}
"""By what stands in a message; the first one that fits counts."""


def _options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a parser and of its commands."""
    for action in parser._actions:
        yield from action.option_strings
        for inner in action.choices.values() if isinstance(action.choices, dict) else ():
            yield from _options_of(inner)

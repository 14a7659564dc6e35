"""Options of earlier versions: their error gives the command that replaces them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import reduce

from locallearn._utils.errors import LocalLearnError


def refuse_removed(arguments: Sequence[str]) -> None:
    """Refuse `--with`: wrappers are written around the rule, as in `--rule "hpff(man(dgl))"`.

    Raises:
        LocalLearnError: `--with` is among the arguments; the sentence has the whole corrected command.
    """
    if not any(argument.partition("=")[0] == "--with" for argument in arguments):
        return
    command, *options = arguments
    rules, wrappers, others = ["auglocal"], [], []
    values = others
    for argument in options:
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            values = {"--rule": rules, "--with": wrappers}.get(option, others)
            if values is not others:
                values += [value] if equals else []
                continue
        values.append(argument)
    rule = reduce(_wrap, reversed(wrappers), rules[-1])
    nested = "--rule." + "rule." * len(wrappers)  # settings of the rule are now deeper
    rest = [nested + option.removeprefix("--rule.") if option.startswith("--rule.") else option for option in others]
    corrected = f'locallearn {command} --rule "{rule}" {shlex.join(rest)}'.rstrip()
    raise LocalLearnError(f"--with has been removed: write wrappers around the rule, {corrected}")


def _wrap(rule: str, wrapper: str) -> str:
    """`man` around `dgl` is `man(dgl)`; `man(ema=false)` around it is `man(dgl, ema=false)`."""
    name, bracket, settings = wrapper.partition("(")
    return f"{name}({rule}, {settings}" if bracket else f"{name}({rule})"

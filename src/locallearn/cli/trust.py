"""What a command may import: registered names, paths typed after its options, and by --trust-code what files name.

A file cannot give `--trust-code`, which is read from the command line alone and is no setting.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache

from locallearn._utils.registry import Trust

_OPTIONS = {"--model", "--data", "--rule", "--rules", "--optimizer", "--schedule", "--loss", "--loggers"}
"""Options whose values, and those of their settings, may be code."""

_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


def trust_of(arguments: Sequence[str]) -> tuple[Trust, list[str]]:
    """What the user of a command trusts, and the arguments without `--trust-code`."""
    rest = [argument for argument in arguments if argument not in ("--trust-code", "--trust_code")]
    trust = Trust(paths=_typed(rest), code=len(rest) < len(arguments), say=cache(_say))
    if (trust.paths or trust.code) and "" not in sys.path:
        sys.path.append("")  # the user's own code is imported from the current folder, after what is installed
    return trust, rest


def _typed(arguments: Sequence[str]) -> set[str]:
    """The values of `_OPTIONS`, and the dotted paths in them."""
    option, paths = "", set()
    for argument in arguments:
        name, equals, value = argument.partition("=") if argument.startswith("--") else (option, "=", argument)
        if equals and name.partition(".")[0] in _OPTIONS:
            paths.update([value, *_PATH.findall(value)])
        option = name if name in ("--rules", "--loggers") or not equals else ""
    return paths


def _say(sentence: str) -> None:
    print(f"note: {sentence}", file=sys.stderr, flush=True)

"""The command as the user typed it."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

import jsonargparse

COMMAND: ContextVar[tuple[Sequence[str], jsonargparse.ArgumentParser] | None] = ContextVar("COMMAND", default=None)
"""The arguments as the user typed them, and their command's parser; settings of classes have parsers of their own."""


def typed_options() -> set[str]:
    """The options that the user typed, without their values, as `--seed` or `--optimizer.lr`."""
    arguments, _ = COMMAND.get() or ((), None)
    return {argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")}

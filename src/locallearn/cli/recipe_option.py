"""`--recipe NAME`: the settings of a published result, which all other options override."""

from __future__ import annotations

import argparse
from typing import Any

from jsonargparse import ActionConfigFile

from locallearn.cli.parser import Parser
from locallearn.recipes import settings_of
from locallearn.training import as_yaml


class RecipeOption(argparse.Action):
    """Takes the settings of a recipe, as `--config` takes those of a file."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        ActionConfigFile.apply_config(parser, namespace, "config", as_yaml(settings_of(values)))


def add_recipe(parser: Parser) -> None:
    """Add the option to a parser that has all training settings."""
    parser.add_argument(
        "--recipe",
        action=RecipeOption,
        default=argparse.SUPPRESS,
        help="settings of a published result that `locallearn list recipes` shows",
    )

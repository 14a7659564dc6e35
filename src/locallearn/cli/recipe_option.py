"""`--recipe NAME`: the settings of a published result, which all other options override."""

from __future__ import annotations

import argparse
from typing import Any

from jsonargparse import ActionConfigFile

from locallearn._utils.errors import LocalLearnError
from locallearn.cli.parser import Parser
from locallearn.recipes import Recipe, find
from locallearn.training import TrainSettings, as_yaml, rule_text


class RecipeOption(argparse.Action):
    """Takes the training settings of a recipe, as `--config` takes those of a file."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        ActionConfigFile.apply_config(parser, namespace, "config", as_yaml(find(values).settings))


class DetectionOption(argparse.Action):
    """Takes the settings of detection instead, and notes the recipe's name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        ActionConfigFile.apply_config(parser, namespace, "config", as_yaml(of_kind("detect", values).detection))
        namespace.recipe = values


def add_recipe(parser: Parser, action: type[argparse.Action] = RecipeOption) -> None:
    """Add the option to a parser that has all training settings, or those that the action takes."""
    parser.add_argument(
        "--recipe",
        action=action,
        default=argparse.SUPPRESS,
        help="settings of a published result that `locallearn list recipes` shows",
    )


def of_kind(kind: str, name: str) -> Recipe:
    """A recipe of an evaluation or of detection.

    Raises:
        LocalLearnError: it is another one.
    """
    recipe = find(name)
    if recipe.kind != kind:
        raise LocalLearnError(f"recipe {name} is none of locallearn {kind}: locallearn list recipes shows its kind.")
    return recipe


def refuse_other_run(recipe: Recipe, run: Any, settings: TrainSettings) -> None:
    """Refuse to set a run of another network, data set or rule beside a recipe's numbers.

    Raises:
        LocalLearnError: says in what it differs.
    """
    asked = recipe.settings
    pairs = {
        "data": (settings.data, asked.data),
        "model": (settings.model, asked.model),
        "rule": (rule_text(settings.rule), rule_text(asked.rule)),
    }
    for name, (own, other) in pairs.items():
        if own != other:
            raise LocalLearnError(
                f"{run} has the {name} {own}, and recipe {recipe.name} {other}: give a run of that recipe."
            )

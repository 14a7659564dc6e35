"""`locallearn list`: the names that other commands take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

from locallearn._chain.published_splits import SPLITS
from locallearn._utils.errors import LocalLearnError, did_you_mean, refuse_unknown
from locallearn._utils.registry import find, names
from locallearn.cli.console import say, show, show_json
from locallearn.cli.parser import Parser
from locallearn.cli.rule_syntax import load_class, short_names
from locallearn.recipes import Recipe, matching, recipes, tables
from locallearn.training import plain_settings, rule_text

HELP = """List the models, data sets, rules, splits, loggers, optimizers, schedules and recipes that have a name.

examples:
  locallearn list                                  # all but the recipes
  locallearn list models
  locallearn list recipes                          # every published result of the papers
  locallearn list recipes "hpff/table1/*resnet32"
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn list [KIND [PATTERN]] [options]")
    parser.add_argument("kind", nargs="?", type=str | None, help="rules, models, data, recipes ...; by default all")
    parser.add_argument("pattern", nargs="?", type=str | None, help="a part of the names; * stands for anything")
    parser.add_argument("--json", action="store_true", help="print all as JSON")
    return parser


def run(config: Any) -> None:
    """Print each name with one line about it."""
    if config.kind == "recipes":
        _list_recipes(matching(config.pattern or "*"), as_json=config.json)
        return
    entries_of = _entries()
    if config.kind is not None:
        refuse_unknown("KIND", config.kind, (*entries_of, "recipes"))
        pattern = f"*{config.pattern or ''}*"
        named = entries_of[config.kind]
        entries_of = {config.kind: {name: line for name, line in named.items() if fnmatch(name, pattern)}}
        if not entries_of[config.kind]:
            near = did_you_mean(config.pattern, named)
            raise LocalLearnError(f"none of the {config.kind} has {config.pattern!r} in its name; {near}")
    if config.json:
        show_json(entries_of)
        return
    for kind, entries in entries_of.items():
        show(kind, ("name", "description"), list(entries.items()), texts=2)
    if config.kind is None:
        say(f"recipes: {len(recipes())} published results, in {len(tables())} tables: locallearn list recipes")


def _entries() -> dict[str, dict[str, str]]:
    kinds = ("rules", "models", "data", "loggers")
    entries_of = {kind: {name: _first_line(find, kind, name) for name in names(kind)} for kind in kinds}
    entries_of["modules"] = {
        "all": "each layer a local module",
        "K": "a number: K groups of layers, larger ones first",
        **{name: f"published split of {' and '.join(networks)}" for name, networks in SPLITS.items()},
    }
    for option in ("--optimizer", "--schedule"):
        paths = short_names(option)
        entries_of[option.strip("-") + "s"] = {name: _first_line(load_class, path) for name, path in paths.items()}
    return entries_of


def _list_recipes(found: list[Recipe], *, as_json: bool) -> None:
    """Each recipe with its settings and the published numbers."""
    if as_json:
        show_json({recipe.name: _plain(recipe) for recipe in found})
        return
    rows = [
        (
            recipe.name,
            recipe.kind,
            rule_text(recipe.settings.rule),
            f"{recipe.settings.modules}",
            f"{recipe.settings.epochs}, {recipe.settings.batch}, {recipe.settings.optimizer.lr:g}, {recipe.trials}",
            _published(recipe) or recipe.note,
        )
        for recipe in found
    ]
    columns = ("name", "kind", "rule", "modules", "epochs, batch, lr, seeds", "published")
    title = "recipes, with the settings of the official code; NAME-paper has those of the paper's text"
    show(title, columns, rows, texts=len(columns))
    for recipe in found:
        if recipe.kind in ("evaluate", "detect"):
            run = "RUN" if recipe.kind == "evaluate" else "RUN --coco FOLDER"
            say(f"{recipe.name}: train --recipe, then locallearn {recipe.kind} {run} with the same --recipe")
        if recipe.missing:
            say(f"{recipe.name} cannot run: {recipe.missing}.")


def _published(recipe: Recipe) -> str:
    """A row in the paper's words, and its numbers; of a table without numbers nothing."""
    rows = dict.fromkeys(f"{one.cell.partition(': ')[2]}: " for one in recipe.published)
    return "".join(rows) + "; ".join(map(str, recipe.published))


def _plain(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON, with the settings in which the paper's text differs, as it has them."""
    published = [
        {"quantity": one.quantity.title, "value": one.value, "deviation": one.deviation, "unit": one.quantity.unit}
        | {"cell": one.cell}
        for one in recipe.published
    ]
    texts = {name: getattr(recipe, name) for name in ("kind", "trials", "missing", "note", "test_data")}
    settings = plain_settings(recipe.settings)
    paper = {} if recipe.paper is None else plain_settings(recipe.paper)
    differs = {name: value for name, value in paper.items() if value != settings[name]}
    return texts | {"published": published, "settings": settings, "paper_settings": differs}


def _first_line(get: Callable[..., Any], *where: str) -> str:
    """What something says of itself, or why it cannot be had."""
    try:
        return (inspect.getdoc(get(*where)) or "").partition("\n")[0]
    except LocalLearnError as error:  # torchvision, say, is not installed
        return str(error)

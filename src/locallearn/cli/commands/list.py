"""`locallearn list`: the names that other commands take."""

from __future__ import annotations

import inspect
from typing import Any

from locallearn._chain.published_splits import SPLITS
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.registry import find, names
from locallearn.cli.console import show, show_json
from locallearn.cli.parser import Parser
from locallearn.cli.rule_syntax import short_names

HELP = "List the models, data sets, rules, splits, loggers, optimizers and schedules that have a name."


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn list [options]")
    parser.add_argument("--json", action="store_true", help="print all as JSON")
    return parser


def run(config: Any) -> None:
    """Print each name with one line about it."""
    kinds = ("rules", "models", "data", "loggers")
    entries_of = {kind: {name: _first_line(kind, name) for name in names(kind)} for kind in kinds}
    entries_of["modules"] = {
        "all": "each layer a local module",
        "K": "a number: K groups of layers, larger ones first",
        **{name: f"published split of {' and '.join(networks)}" for name, networks in SPLITS.items()},
    }
    for option in ("--optimizer", "--schedule"):
        paths = short_names(option)
        entries_of[option.strip("-") + "s"] = {name: _first_line("rules", path) for name, path in paths.items()}
    if config.json:
        show_json(entries_of)
        return
    for kind, entries in entries_of.items():
        show(kind, ("name", "description"), list(entries.items()), texts=2)


def _first_line(kind: str, name: str) -> str:
    try:
        return (inspect.getdoc(find(kind, name)) or "").partition("\n")[0]
    except LocalLearnError as error:  # torchvision, say, is not installed
        return str(error)

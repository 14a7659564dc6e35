"""`locallearn reproduce`: a table of the papers, published and here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from locallearn._utils.errors import LocalLearnError
from locallearn.cli.console import progress, say, show, show_json
from locallearn.cli.parser import Parser
from locallearn.recipes import Recipe, rows_of
from locallearn.recipes.catalogue import matching_rows
from locallearn.recipes.costs import cost_rows, has_costs
from locallearn.recipes.results import number, save_costs, source, title_of

HELP = """Reproduce a table of the papers, beside its published numbers.

examples:
  locallearn reproduce hpff/table3                           # costs: predicted memory and multiply-accumulates
  locallearn reproduce auglocal/table4 --rows resnet110      # some of its rows
  locallearn list recipes                                    # all tables and rows

Costs are counted on fake tensors: no GPU, no data and no training are needed.
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn reproduce TABLE [options]")
    parser.add_argument("table", type=str, help="a table, such as hpff/table3")
    parser.add_argument("--rows", type=str, default="*", help="a part of the rows' names; * stands for anything")
    parser.add_argument("--save", type=Path | None, help="write the table and a page of all tables into this folder")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


def run(config: Any) -> None:
    """Reproduce the table, print and save it."""
    _costs(config, matching_rows(rows_of(config.table), config.rows))


def _costs(config: Any, rows: list[Recipe]) -> None:
    asked = [recipe for recipe in rows if has_costs(recipe)]
    if not asked:
        raise LocalLearnError(f"{title_of(config.table)} prints no costs in these rows.")
    with progress() as watch:
        found = cost_rows(asked, watch)
    if config.save is not None:
        say(f"saved: {save_costs(config.table, found, config.save)}")
    if config.json:
        show_json({"table": config.table, **source(), "rows": [asdict(row) for row in found]})
        return
    table = [
        (
            row.recipe.rpartition("/")[2],
            f"{row.batch}",
            number(row.published_gb),
            number(row.published_ratio),
            f"{row.step.peak_bytes / 2**30:.2f}",
            f"{row.ratio:.2f}",
            number(row.published_macs),
            f"{row.step.macs / 1e9:.2f}",
        )
        for row in found
    ]
    columns = ("row", "batch", "published GB", "x BP", "predicted GiB", "x BP", "published G MACs", "counted")
    show(f"{title_of(config.table)}: cost of a training step", columns, table)

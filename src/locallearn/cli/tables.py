"""Tables of comparisons on standard output: for a terminal, as Markdown, as LaTeX, as CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence

from locallearn._utils.optional_imports import optional
from locallearn.cli.console import show
from locallearn.report import Cell, Group, Table, rows_of_runs

FORMATS = ("table", "csv", "latex", "markdown")

_OF_TABULATE = {"latex": "latex_booktabs", "markdown": "github"}


def show_table(title: str, table: Table, form: str) -> None:
    """Print a table.

    Args:
        title: above it, in a terminal.
        table: the table.
        form: of `FORMATS`, but for "csv".
    """
    rows = [[_text(cell) for cell in row] for row in table.rows]
    if form == "table":
        show(title, table.columns, rows)
        return
    numbers = ("right" if table.numbers else "left",) * (len(table.columns) - 1)
    options = {"tablefmt": _OF_TABULATE[form], "colalign": ("left", *numbers), "disable_numparse": True}
    sys.stdout.write(optional("tabulate").tabulate(rows, headers=table.columns, **options) + "\n")


def show_runs(groups: Sequence[Group]) -> None:
    """Print every run as a line of CSV."""
    rows = list(rows_of_runs(groups))
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def _text(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text

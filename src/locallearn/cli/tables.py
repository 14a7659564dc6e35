"""Tables of comparisons on standard output: for a terminal, as Markdown, as LaTeX, as CSV."""

from __future__ import annotations

import csv
import re
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
    columns = list(table.columns)
    if form == "markdown":
        columns, *rows = [list(map(_as_markdown, row)) for row in (columns, *rows)]
    numbers = ("right" if table.numbers else "left",) * (len(table.columns) - 1)
    options = {"tablefmt": _OF_TABULATE[form], "colalign": ("left", *numbers), "disable_numparse": True}
    text = optional("tabulate").tabulate(rows, headers=columns, **options)
    if form == "latex":
        text = text.replace(
            "|", r"\textbar{}"
        )  # the one special character that tabulate leaves: a dash in TeX's own fonts
    sys.stdout.write(text + "\n")


def show_runs(groups: Sequence[Group]) -> None:
    """Print every run as a line of CSV."""
    rows = list(rows_of_runs(groups))
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def _as_markdown(text: str) -> str:
    """A text that stays what it is in a cell of Markdown; tabulate does this for LaTeX alone."""
    return re.sub(r"([\\`*_|<\[])", r"\\\1", text)


def _text(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text

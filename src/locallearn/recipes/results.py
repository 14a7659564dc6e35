"""Results of reproductions as files: JSON for each table, beside one page that shows them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import locallearn
from locallearn._utils.atomic_files import read_json, write_json, write_whole
from locallearn._utils.commit import commit_of_code
from locallearn._utils.outputs import make_folder
from locallearn.recipes.accuracies import AccuracyRow
from locallearn.recipes.catalogue import rows_of
from locallearn.recipes.columns import bp_accuracies
from locallearn.recipes.costs import CostRow
from locallearn.recipes.figures import draw_table
from locallearn.recipes.page import page, picture_of


def save(table: str, rows: Sequence[CostRow] | Sequence[AccuracyRow], folder: Path, *, command: str, what: str) -> Path:
    """Write the rows of a table, in place of those of earlier calls, and the page anew.

    A row that lost runs to another process or an error does not replace one with more.

    Args:
        table: such as `hpff/table3`.
        rows: of the table, some or all.
        folder: of the page; tables go into its folder `tables`.
        command: repeats the table.
        what: cost, or the budget.
    """
    make_folders(folder)
    file = folder / "tables" / f"{table.replace('/', '-')}-{what}.json"
    known = {row["recipe"]: row for row in read_json(file)["rows"]} if file.exists() else {}
    for row in rows:
        if _replaces(row, known.get(row.recipe)):
            known[row.recipe] = asdict(row) | {"origin": {"command": command, **source()}}
    ordered = [known[recipe.name] for recipe in rows_of(table) if recipe.name in known]
    write_json(file, {"table": table, "what": what, "rows": ordered})
    _draw(file, what)
    write_whole(folder / "README.md", page(folder).encode())
    return file


def make_folders(folder: Path) -> None:
    """Make the folders to which `save` writes.

    Raises:
        LocalLearnError: one cannot be made, or one may not write there.
    """
    for one in (folder, folder / "tables", folder / "figures"):
        make_folder(one, "--save")


def _replaces(row: CostRow | AccuracyRow, known: Mapping[str, Any] | None) -> bool:
    """Whether a row takes the place of that of an earlier call."""
    return known is None or isinstance(row, CostRow) or not row.not_run or len(row.seeds) >= len(known["seeds"])


def _draw(file: Path, what: str) -> None:
    """Draw the table of a file, and those beside it that show distances to the same BP."""
    found = {other: read_json(other) for other in sorted(file.parent.glob(f"*-{what}.json"))}
    bps = {} if what == "cost" else bp_accuracies(list(found.values()))
    for other, values in found.items():
        if other == file or bps or not picture_of(other).exists():
            draw_table(values, bps, picture_of(other))


def source() -> dict[str, Any]:
    """The version of this library, and its commit if it lies in a Git repository."""
    return {"locallearn": locallearn.__version__, "commit": commit_of_code(), "torch": torch.__version__}

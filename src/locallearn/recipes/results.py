"""Results of reproductions as files: JSON for each table, beside one page that shows them all."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import locallearn
from locallearn._utils.atomic_files import read_json, write_json, write_whole
from locallearn.recipes.accuracies import AccuracyRow
from locallearn.recipes.catalogue import rows_of
from locallearn.recipes.columns import bp_accuracies
from locallearn.recipes.costs import CostRow
from locallearn.recipes.figures import draw_table
from locallearn.recipes.page import page, picture_of


def save(table: str, rows: Sequence[CostRow] | Sequence[AccuracyRow], folder: Path, *, command: str, what: str) -> Path:
    """Write the rows of a table, in place of those of earlier calls, and the page anew.

    Args:
        table: such as `hpff/table3`.
        rows: of the table, some or all.
        folder: of the page; tables go into its folder `tables`.
        command: repeats the table.
        what: cost, or the budget.
    """
    file = folder / "tables" / f"{table.replace('/', '-')}-{what}.json"
    known = {row["recipe"]: row for row in read_json(file)["rows"]} if file.exists() else {}
    known |= {row.recipe: asdict(row) for row in rows}
    file.parent.mkdir(parents=True, exist_ok=True)
    ordered = [known[recipe.name] for recipe in rows_of(table) if recipe.name in known]
    write_json(file, {"table": table, "what": what, "command": command, **source(), "rows": ordered})
    _draw(file)
    write_whole(folder / "README.md", page(folder).encode())
    return file


def _draw(file: Path) -> None:
    """Draw the table of a file, and those beside it that are not drawn yet."""
    found = {other: read_json(other) for other in sorted(file.parent.glob("*.json"))}
    picture_of(file).parent.mkdir(exist_ok=True)
    for other, values in found.items():
        if other == file or not picture_of(other).exists():
            alike = [one for one in found.values() if one["what"] == values["what"]]
            draw_table(values, {} if values["what"] == "cost" else bp_accuracies(alike), picture_of(other))


def source() -> dict[str, Any]:
    """The version of this library, and its commit if it lies in a Git repository."""
    folder = Path(locallearn.__file__).parent
    asked = ["git", "-C", str(folder), "log", "-1", "--format=%h", "--", "."]
    try:
        commit = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return {"locallearn": locallearn.__version__, "commit": commit, "torch": torch.__version__}

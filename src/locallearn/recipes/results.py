"""Results of reproductions as files: JSON for each table, and one page of Markdown that shows them all."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import locallearn
from locallearn._utils.atomic_files import read_json, write_json, write_whole
from locallearn.recipes.catalogue import tables
from locallearn.recipes.costs import CostRow

_INTRODUCTION = """# Results

Written by `locallearn reproduce TABLE --save docs/results` from the files in [tables](tables). Each command repeats its
table. What is measured elsewhere:

"""

_ABOUT_COSTS = """## Costs

Peak memory of one training step with the official settings and the table's batch, counted on fake tensors: parameters,
gradients, optimizer state, batch and activations, in GiB. What a GPU adds (its context, workspaces of its libraries,
fragments) is in the published numbers and not in these. With `memory=fast`, the default, a step recomputes activations
where that saves a tenth or more. BP does so too and needs less here than in the papers: ratios to it compare two leaner
steps. Multiply-accumulates are those of one image forward through backbone and task heads, counted as AugLocal counts
them. Time is not measured.

"""


def save_costs(table: str, rows: Sequence[CostRow], folder: Path) -> Path:
    """Write the costs of a table, and the page anew.

    Args:
        table: such as `hpff/table3`.
        rows: of the table.
        folder: of the page; the table goes into its folder `tables`.
    """
    found = {"table": table, "command": f"locallearn reproduce {table}", **source()}
    return save(f"{table.replace('/', '-')}-cost", found | {"rows": [asdict(row) for row in rows]}, folder)


def save(name: str, values: Mapping[str, Any], folder: Path) -> Path:
    """Write the file of a table, and the page anew."""
    file = folder / "tables" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, values)
    write_whole(folder / "README.md", page(folder).encode())
    return file


def source() -> dict[str, str]:
    """The version of this library, and its commit if it lies in a Git repository."""
    folder = Path(locallearn.__file__).parent
    asked = ["git", "-C", str(folder), "log", "-1", "--format=%h", "--", "."]
    try:
        commit = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return {"locallearn": locallearn.__version__, "commit": commit, "torch": torch.__version__}


def page(folder: Path) -> str:
    """The page of all tables under a folder, in the order of the papers."""
    order = {table.replace("/", "-"): place for place, table in enumerate(tables())}
    files = sorted((folder / "tables").glob("*.json"), key=lambda file: order.get(file.stem.rpartition("-")[0], 0))
    others = sorted(file for file in folder.glob("*.md") if file.name != "README.md")
    links = "".join(f"* [{file.read_text().partition(chr(10))[0].lstrip('# ')}]({file.name})\n" for file in others)
    costs = "".join(_costs(read_json(file), file) for file in files if file.stem.endswith("-cost"))
    return (_INTRODUCTION + links + ("\n" + _ABOUT_COSTS + costs if costs else "")).rstrip() + "\n"


def _costs(values: Mapping[str, Any], file: Path) -> str:
    """A table of costs in Markdown, with the remarks that a file beside it makes."""
    rows, remarks = values["rows"], file.with_suffix(".md")
    printed_macs = any(row["published_macs"] is not None for row in rows)
    printed_memory = any(row["published_gb"] is not None for row in rows)
    columns = ["row", "batch"]
    columns += ["published, GB", "x BP"] if printed_memory else []
    columns += ["predicted, GiB", "x BP"]
    columns += ["published MACs, G", "counted, G"] if printed_macs else []
    cells = []
    for row in rows:
        step = row["step"]
        cells.append(
            [
                f"`{row['recipe'].rpartition('/')[2]}`",
                f"{row['batch']}",
                *([number(row["published_gb"]), number(row["published_ratio"])] if printed_memory else []),
                f"{step['peak_bytes'] / 2**30:.2f}",
                f"{row['ratio']:.2f}",
                *([number(row["published_macs"]), f"{step['macs'] / 1e9:.2f}"] if printed_macs else []),
            ]
        )
    text = remarks.read_text().strip() + "\n\n" if remarks.exists() else ""
    return f"### {title_of(values['table'])}: cost\n\n{markdown(columns, cells)}\n{_origin(values)}\n\n{text}"


def _origin(values: Mapping[str, Any]) -> str:
    return f"`{values['command']}`, commit {values['commit'] or values['locallearn']}, torch {values['torch']}."


def title_of(table: str) -> str:
    """`HPFF, Table 3` for `hpff/table3`."""
    paper, _, number = table.partition("/table")
    return f"{ {'auglocal': 'AugLocal'}.get(paper, paper.upper()) }, Table {number}"


def number(value: float | None) -> str:
    """Two decimals, or nothing."""
    return "" if value is None else f"{value:.2f}"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

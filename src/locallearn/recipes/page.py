"""The page of all reproduced tables, in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import read_json
from locallearn._utils.quantities import counted
from locallearn.recipes.catalogue import recipes, rows_of, tables
from locallearn.recipes.columns import BPs, accuracy_columns, bp_accuracies, cost_columns, row_name, title_of
from locallearn.recipes.training_budget import Budget, unfit

_INTRODUCTION = """# Results

Written by `locallearn reproduce TABLE --save docs/results` from the files in [tables](tables). The commands below a
table made its rows, and repeat them; `--rows` picks some. What is measured elsewhere:

"""

_ABOUT: Mapping[Any, str] = {
    "cost": """## Costs

Peak memory of one training step with the official settings and the table's batch, counted on fake tensors: parameters,
gradients, optimizer state, batch and activations, in GiB. What a GPU adds (its context, workspaces of its libraries,
fragments) is in the published numbers and not in these. With `memory=fast`, the default, a step recomputes activations
where that saves a tenth or more, in BP too: "x BP here". "x PyTorch's BP" compares with a step of plain PyTorch, which
stores all that its layers save, as the papers' BP does. Multiply-accumulates are those of one image forward through
backbone and task heads, counted as AugLocal counts them. Published GB are taken for
GiB, as GPU tools print them. Time and accuracy are not measured here; what the papers print of them is shown.

""",
    "small": """## Accuracy at the small budget

The first 10,000 training images, 15 epochs of batch 128, cosine schedule without warm-up, mixed precision with
bfloat16; ResNet-110: 5,000 images, 10 epochs; every layer a module where the paper's K says so. The learning rate is
0.05 or 0.2, whichever has the better accuracy, with the first seed, on the last 5,000 training images, on which nothing
is trained. STL-10 has 4,000 images to train on and 1,000 to choose on. Numbers are those of the last epoch on the test
images, mean and standard deviation over seeds; "best epoch" is that of the epoch which is best on the test images
themselves. The papers train 400 epochs of all images: compare the distances to BP, in points; more is worse.

""",
    "smoke": """## Smoke runs

Seconds of training on bundled digits, which show that rows run, and nothing about accuracy.

""",
    "full": """## Accuracy with the papers' epochs

The official settings. Numbers are those of the last epoch on the test images, mean and standard deviation over seeds.

""",
}


def page(folder: Path) -> str:
    """The page of all tables under a folder, in the order of the papers, with the remarks that its .md files make."""
    order = {table: place for place, table in enumerate(tables())}
    found = [(file, read_json(file)) for file in (folder / "tables").glob("*.json")]
    found.sort(key=lambda pair: order[pair[1]["table"]])
    others = sorted(file for file in folder.glob("*.md") if file.name != "README.md")
    text = _INTRODUCTION
    text += "".join(f"* [{file.read_text().partition(chr(10))[0].lstrip('# ')}]({file.name})\n" for file in others)
    for what, about in _ABOUT.items():
        shown = [(file, values) for file, values in found if values["what"] == what]
        bps = bp_accuracies([values for _, values in shown]) if what != "cost" else {}
        parts = [_table(values, file, bps) for file, values in shown]
        if parts and what != "cost":
            run = [values["table"] for _, values in shown if any(row["seeds"] for row in values["rows"])]
            parts.append(_tables_not_run(what, run))
        remarks = folder / "tables" / f"{what}.md"
        about += remarks.read_text().strip() + "\n\n" if remarks.exists() else ""
        text += "\n" + about + "".join(parts).rstrip() + "\n" if parts else ""
    return text


def picture_of(file: Path) -> Path:
    """Where the picture of a table's file is."""
    return file.parents[1] / "figures" / f"{file.stem}.svg"


def _table(values: Mapping[str, Any], file: Path, bps: BPs) -> str:
    """A table with its origin, and the remarks that a file of its name makes."""
    rows = values["rows"]
    columns, cells = cost_columns(rows) if values["what"] == "cost" else accuracy_columns(rows, bps)
    remarks = file.with_suffix(".md")
    origins: dict[str, list[str]] = {}
    for row in rows:
        if row.get("seeds", True):
            origins.setdefault(_origin(row), []).append(f"`{row['recipe'].rpartition('/')[2]}`")
    several = len(origins) > 1
    title = f"{title_of(values['table'])}, {values['what']}"
    text = f"### {title}\n\n{_markdown(columns, cells)}\n"
    if (picture := picture_of(file)).exists():
        text += f"![{title}: published and here]({picture.relative_to(file.parents[1])})\n\n"
    text += "; ".join(f"{', '.join(names)}: {origin}" if several else origin for origin, names in origins.items())
    text += ".\n\n" + _validated(rows) + _rows_not_run(values)
    return text + (remarks.read_text().strip() + "\n\n" if remarks.exists() else "")


def _validated(rows: Iterable[Mapping[str, Any]]) -> str:
    """The validation accuracies that chose the learning rates."""
    each = [
        f"`{row_name(row)}` " + " and ".join(f"{100 * accuracy:.1f} (lr {lr})" for lr, accuracy in found.items())
        for row in rows
        if (found := row.get("validated"))
    ]
    return f"Validation accuracy with the first seed, in percent: {'; '.join(each)}.\n\n" if each else ""


def _origin(row: Mapping[str, Any]) -> str:
    """By what a row was made; of runs that did not record their commit, the version alone."""
    origin, device = row["origin"], row.get("device")
    commit = row.get("commit", origin["commit"]) or f"of locallearn {origin['locallearn']}"
    return f"`{origin['command']}`, commit {commit}, torch {origin['torch']}{f', on {device}' if device else ''}"


def _rows_not_run(values: Mapping[str, Any]) -> str:
    """The rows that a table of accuracies lacks, in a part that is closed at first."""
    if values["what"] == "cost":
        return ""
    could = [recipe for recipe in rows_of(values["table"]) if not unfit(recipe, values["what"])]
    run = {row["recipe"] for row in values["rows"] if row["seeds"]}
    names = [f"`{recipe.row}`" for recipe in could if recipe.name not in run]
    if not names:
        return ""
    summary = f"{len(names)} of {counted(len(could), 'row')} {'was' if len(names) == 1 else 'were'} not run"
    return f"<details><summary>{summary}</summary>\n\n{', '.join(names)}\n\n</details>\n\n"


def _tables_not_run(budget: Budget, run: Collection[str]) -> str:
    """The tables of which no row was run, but could be; and rows that cannot be, with the reason."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for recipe in recipes().values():
        if recipe.table and recipe.kind != "cost":
            reasons.setdefault(unfit(recipe, budget), {}).setdefault(title_of(recipe.table), []).append(recipe.row)
    begun = {title_of(table) for table in run}
    names = [title for title in reasons.pop("", {}) if title not in begun]
    own = "**No row of their own**, but for those that a table above has too:"
    text = f"{own} {'; '.join(names)}.\n" if names else ""
    lines = [f"* {'; '.join(map(_rows, rows.items()))}: {why}.\n" for why, rows in reasons.items()]
    return text + ("\n**Not of this budget**:\n\n" + "".join(lines) if lines else "")


def _rows(of_table: tuple[str, Sequence[str]]) -> str:
    """`HPFF, Table 2 (10 rows)`."""
    title, rows = of_table
    return f"{title} ({counted(len(rows), 'row')})"


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column has names and whose others have numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *([f"`{name}`", *numbers] for name, *numbers in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

"""The page of all reproduced tables, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import read_json
from locallearn.recipes.catalogue import recipes, tables
from locallearn.rules import BP

_INTRODUCTION = """# Results

Written by `locallearn reproduce TABLE --save docs/results` from the files in [tables](tables). Each command repeats its
table. What is measured elsewhere:

"""

_ABOUT = {
    "cost": """## Costs

Peak memory of one training step with the official settings and the table's batch, counted on fake tensors: parameters,
gradients, optimizer state, batch and activations, in GiB. What a GPU adds (its context, workspaces of its libraries,
fragments) is in the published numbers and not in these. With `memory=fast`, the default, a step recomputes activations
where that saves a tenth or more, in BP too: "x BP here". "x PyTorch's BP" compares with a step of plain PyTorch, which
stores all that its layers save, as the papers' BP does. Multiply-accumulates are those of one image forward through
backbone and task heads, counted as AugLocal counts them. Time is not measured.

""",
    "small": """## Accuracy at the small budget

The first 10,000 training images, 15 epochs of batch 128, cosine schedule without warm-up, mixed precision with
bfloat16; ResNet-110: 5,000 images, 10 epochs; every layer a module where the paper's K says so. The learning rate is
0.05 or 0.2, whichever has the better accuracy, with the first seed, on the last 5,000 training images, on which nothing
is trained. Numbers are those of the last epoch on the test images, mean and standard deviation over seeds. The papers
train 400 epochs of all images: compare the distances to BP, in points; more is worse.

""",
    "full": """## Accuracy with the papers' epochs

The official settings. Numbers are those of the last epoch on the test images, mean and standard deviation over seeds.

""",
}


def page(folder: Path) -> str:
    """The page of all tables under a folder, in the order of the papers."""
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
        text += "\n" + about + "".join(parts).rstrip() + "\n" if parts else ""
    return text


def picture_of(file: Path) -> Path:
    """Where the picture of a table's file is."""
    return file.parents[1] / "figures" / f"{file.stem}.svg"


def _table(values: Mapping[str, Any], file: Path, bps: Mapping[tuple[str, str], float]) -> str:
    """A table with its origin, and the remarks that a file of its name makes."""
    rows = values["rows"]
    columns, cells = cost_columns(rows) if values["what"] == "cost" else accuracy_columns(rows, bps)
    remarks = file.with_suffix(".md")
    origin = f"`{values['command']}`, commit {values['commit'] or values['locallearn']}, torch {values['torch']}"
    devices = ", ".join(dict.fromkeys(row["device"] for row in rows if row.get("device")))
    title = f"{title_of(values['table'])}, {values['what']}"
    text = f"### {title}\n\n{_markdown(columns, cells)}\n"
    if (picture := picture_of(file)).exists():
        text += f"![{title}: published and here]({picture.relative_to(file.parents[1])})\n\n"
    text += f"{origin}{f', on {devices}' if devices else ''}.\n\n"
    return text + (remarks.read_text().strip() + "\n\n" if remarks.exists() else "")


def cost_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of a table of costs; columns without any number are left out."""
    columns: dict[str, list[str]] = {"row": [row_name(row) for row in rows]}
    columns["batch"] = [f"{row['batch']}" for row in rows]
    columns["published, GB"] = [_number(row["published_gb"]) for row in rows]
    columns["published, x BP"] = [_number(row["published_ratio"]) for row in rows]
    columns["predicted, GiB"] = [_number(_over(row["step"]["peak_bytes"], 2**30)) for row in rows]
    columns["x BP here"] = [_number(row["ratio"]) for row in rows]
    columns["x PyTorch's BP"] = [_number(row["plain_ratio"]) for row in rows]
    columns["published MACs, G"] = [_number(row["published_macs"]) for row in rows]
    columns["counted, G"] = [_number(_over(row["step"]["macs"], 1e9)) for row in rows]
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)]


def accuracy_columns(
    rows: Sequence[Mapping[str, Any]], bps: Mapping[tuple[str, str], float]
) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of a table of accuracies.

    Args:
        rows: of the table.
        bps: accuracy of BP here, in percent, by data set and network.
    """
    columns = [
        "row",
        "quantity",
        "published",
        "below BP",
        "here",
        "below BP",
        "difference",
        "best epoch",
        "seeds",
        "lr",
    ]
    cells = []
    for row in rows:
        bp = bps.get((row["data"], row["model"]))
        for one in row["measured"]:
            sign = -1 if one["quantity"].endswith("error") else 1
            published_bp = printed_bp(row["recipe"], one["quantity"])
            values, mean = one["values"], statistics.fmean(one["values"]) if one["values"] else None
            own = None if mean is None or bp is None else bp - (mean if sign == 1 else 100 - mean)
            below = None if published_bp is None else sign * (published_bp - one["published"])
            cells.append(
                [
                    row_name(row),
                    f"{one['quantity']}, %",
                    _with_deviation(one["published"], one["deviation"]),
                    _number(below),
                    row["not_run"] or _with_deviation(mean, statistics.stdev(values) if len(values) > 1 else None),
                    _number(own),
                    _number(None if mean is None else mean - one["published"]),
                    _number(statistics.fmean(one["best"]) if one["best"] else None),
                    ", ".join(map(str, row["seeds"])),
                    f"{row['lr']:g}",
                ]
            )
    return columns, cells


def bp_accuracies(found: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Mean accuracy of BP's runs, in percent, by data set and network, from all tables."""
    result = {}
    for row in (row for values in found for row in values["rows"]):
        if row["rule"] == "bp" and row["measured"] and row["measured"][0]["values"]:
            one = row["measured"][0]
            mean = statistics.fmean(one["values"])
            result[row["data"], row["model"]] = 100 - mean if one["quantity"].endswith("error") else mean
    return result


def printed_bp(name: str, quantity: str) -> float | None:
    """What the paper prints for BP with the same network, images and quantity: in this table, else in another."""
    recipe, paper = recipes()[name], name.partition("/")[0]
    found = {
        other.table: one.value
        for other in recipes().values()
        if other.name.startswith(f"{paper}/")
        and other.kind == recipe.kind
        and isinstance(other.settings.rule, BP)
        and (other.settings.model, other.settings.data) == (recipe.settings.model, recipe.settings.data)
        for one in other.published
        if one.quantity.title == quantity
    }
    return found.get(recipe.table, next(iter(found.values()), None))


def title_of(table: str) -> str:
    """`HPFF, Table 3` for `hpff/table3`."""
    paper, _, number = table.partition("/table")
    return f"{'AugLocal' if paper == 'auglocal' else paper.upper()}, Table {number}"


def row_name(row: Mapping[str, Any]) -> str:
    """The name of a row within its table."""
    return row["recipe"].rpartition("/")[2]


def _with_deviation(value: float | None, deviation: float | None) -> str:
    return _number(value) + ("" if deviation is None else f" ± {deviation:.2f}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column has names and whose others have numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *([f"`{name}`", *numbers] for name, *numbers in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

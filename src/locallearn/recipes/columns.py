"""The columns of reproduced tables: published numbers beside those counted or trained here."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from locallearn.recipes.catalogue import recipes
from locallearn.recipes.training_budget import Budget, at_budget
from locallearn.rules import BP

BPs = Mapping[tuple[str, str], float]
"""Accuracy of BP here, in percent, by the recipe and the quantity that are compared with it."""


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
    columns["published time above BP, %"] = [_number(row.get("published_time")) for row in rows]
    accuracies = [[one for one in recipes()[row["recipe"]].published if not one.quantity.is_cost] for row in rows]
    for title in dict.fromkeys(one.quantity.title for found in accuracies for one in found):
        values = [next((one.value for one in found if one.quantity.title == title), None) for found in accuracies]
        columns[f"published {title}, %"] = [_number(value) for value in values]
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)]


def accuracy_columns(rows: Sequence[Mapping[str, Any]], bps: BPs) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of a table of accuracies.

    Args:
        rows: of the table.
        bps: as of `bp_accuracies`.
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
        for one in row["measured"]:
            name = row["recipe"], one["quantity"]
            bp, published_bp, sign = bps.get(name), printed_bp(*name), -1 if one["quantity"].endswith("error") else 1
            values, accuracy = one["values"], accuracies_of(one)
            mean = statistics.fmean(values) if values else None
            here = _with_deviation(mean, statistics.stdev(values) if len(values) > 1 else None)
            below = None if published_bp is None else sign * (published_bp - one["published"])
            cells.append(
                [
                    row_name(row),
                    f"{one['quantity']}, %",
                    _with_deviation(one["published"], one["deviation"]),
                    _number(below),
                    "; ".join(filter(None, (here, row["not_run"] if one is row["measured"][0] else ""))),
                    _number(bp - statistics.fmean(accuracy) if accuracy and bp is not None else None),
                    _number(None if mean is None else mean - one["published"]),
                    _number(statistics.fmean(one["best"]) if one["best"] else None),
                    ", ".join(map(str, row["seeds"])),
                    f"{row['lr']:g}",
                ]
            )
    return columns, cells


def bp_accuracies(found: Sequence[Mapping[str, Any]]) -> BPs:
    """Mean accuracy of BP's runs with which each number of some tables compares.

    BP is that of the same table, else one of another table that has the same images, network, epochs and batch.
    """
    measured = [
        (row, one, _comparable(row, one["quantity"], values["what"]))
        for values in found
        for row in values["rows"]
        for one in row["measured"]
        if one["values"]
    ]
    bps = {
        key: statistics.fmean(accuracies_of(one)) for row, one, keys in measured if row["rule"] == "bp" for key in keys
    }
    each = ((row, one, [bps[key] for key in keys if key in bps]) for row, one, keys in measured)
    return {
        (row["recipe"], one["quantity"]): of_table_else_alike[0]
        for row, one, of_table_else_alike in each
        if of_table_else_alike
    }


def _comparable(row: Mapping[str, Any], quantity: str, what: Budget) -> tuple[Hashable, Hashable]:
    """What numbers of one table have in common to be compared, and what numbers of different tables have."""
    recipe = recipes()[row["recipe"]]
    trained = at_budget(recipe.settings, what)
    images = row["data"], recipe.test_data, row["model"], quantity.replace("error", "accuracy")
    return (recipe.table, *images), (*images, trained.epochs, trained.batch, trained.train_images)


def accuracies_of(one: Mapping[str, Any]) -> list[float]:
    """Accuracy of each seed in percent, of a quantity that may be an error."""
    return [100 - value if one["quantity"].endswith("error") else value for value in one["values"]]


def printed_bp(name: str, quantity: str) -> float | None:
    """What the paper prints for BP with the same network, images and quantity: in this table, else in another."""
    recipe, paper = recipes()[name], name.partition("/")[0]
    found = {
        other.table: one.value
        for other in recipes().values()
        if other.name.startswith(f"{paper}/")
        and other.test_data == recipe.test_data
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

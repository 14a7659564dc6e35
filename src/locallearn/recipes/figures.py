"""Published numbers and those here, as a picture of each table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locallearn._figures.style import COLOURS, PAGE, new_figure, print_style, save
from locallearn.recipes.columns import BPs, printed_bp, row_name, title_of


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A row of the picture.

    Attributes:
        name: of the table's row.
        published, here: the numbers.
        published_deviation, deviation: their standard deviations, where there are several seeds.
    """

    name: str
    published: float
    here: float
    published_deviation: float | None = None
    deviation: float | None = None


def pairs_of(values: Mapping[str, Any], bps: BPs) -> tuple[str, list[Pair]]:
    """What the picture of a table shows: its axis, and the rows that have both numbers.

    Args:
        values: the table, as its file holds it.
        bps: as of `columns.bp_accuracies`.
    """
    rows = values["rows"]
    if values["what"] != "cost":
        below = list(_below_bp(rows, bps))
        return ("points below BP", below) if below else ("test accuracy or error, %", list(_accuracies(rows)))
    if any(row["published_ratio"] is not None for row in rows):
        names = ("published_ratio", "plain_ratio")
        found = [(row, *(row[name] for name in names)) for row in rows]
        axis = "memory of a step, x BP of PyTorch"
    else:
        found = [(row, row["published_macs"], row["step"]["macs"] and row["step"]["macs"] / 1e9) for row in rows]
        axis = "multiply-accumulates forward, G"
    pairs = [Pair(name=row_name(row), published=a, here=b) for row, a, b in found if a is not None and b is not None]
    return axis, pairs


def _accuracies(rows: Sequence[Mapping[str, Any]]) -> Iterator[Pair]:
    """The first quantity of each row that has values."""
    for row in rows:
        for one in row["measured"][:1]:
            if values := one["values"]:
                yield Pair(
                    name=row_name(row),
                    published=one["published"],
                    published_deviation=one["deviation"],
                    here=statistics.fmean(values),
                    deviation=statistics.stdev(values) if len(values) > 1 else None,
                )


def _below_bp(rows: Sequence[Mapping[str, Any]], bps: BPs) -> Iterator[Pair]:
    """The same as distances to BP, larger ones worse; BP itself is left out."""
    for row in rows:
        pair, quantity = next(_accuracies([row]), None), row["measured"][0]["quantity"] if row["measured"] else ""
        bp = bps.get((row["recipe"], quantity))
        if pair is None or bp is None or row["rule"] == "bp":
            continue
        if (published_bp := printed_bp(row["recipe"], quantity)) is None:
            continue
        is_error = quantity.endswith("error")
        accuracy = 100 - pair.here if is_error else pair.here
        yield Pair(
            name=pair.name,
            published=pair.published - published_bp if is_error else published_bp - pair.published,
            published_deviation=pair.published_deviation,
            here=bp - accuracy,
            deviation=pair.deviation,
        )


@print_style()
def draw_table(values: Mapping[str, Any], bps: BPs, path: Path) -> bool:
    """Draw published numbers and those here, row by row.

    Args:
        values: the table, as its file holds it.
        bps: as of `columns.bp_accuracies`.
        path: the file.

    Returns:
        Whether there are rows to draw: at least two.
    """
    axis, pairs = pairs_of(values, bps)
    if len(pairs) < 2:
        return False
    figure = new_figure(width=PAGE, height=0.9 + 0.2 * len(pairs))
    axes = figure.subplots()
    places = range(len(pairs), 0, -1)
    for place, pair in zip(places, pairs, strict=True):
        axes.plot([pair.published, pair.here], [place, place], color="#BBBBBB", linewidth=1, zorder=1)
    series = (
        ("published", [(pair.published, pair.published_deviation) for pair in pairs], COLOURS[6], "white"),
        ("here", [(pair.here, pair.deviation) for pair in pairs], COLOURS[0], COLOURS[0]),
    )
    for label, numbers, colour, face in series:
        means, deviations = zip(*numbers, strict=True)
        bars = [deviation or 0.0 for deviation in deviations]
        look = {"fmt": "o", "color": colour, "markerfacecolor": face, "label": label, "elinewidth": 1}
        axes.errorbar(means, list(places), xerr=bars if any(bars) else None, **look)
    axes.set_yticks(list(places), [pair.name for pair in pairs])
    axes.set(xlabel=axis, title=f"{title_of(values['table'])}, {values['what']}")
    axes.legend()
    save(figure, path)
    return True

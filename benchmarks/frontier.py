"""Accuracy, memory and time of every rule at the small budget: the figure and the table of docs/results/recommended.md.

python benchmarks/frontier.py            # the figure, frontier.png and .svg, and the table of the page
python benchmarks/frontier.py --again    # counts all costs, not only those that results/frontier.json lacks
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from _candidates import COMMON, SEARCHES, WITH_COST, step_of
from locallearn._figures.style import COLOURS, PAGE as WIDTH, new_figure, print_style, save
from locallearn._utils.atomic_files import read_json, write_json, write_whole
from locallearn.cli.parser import parse_rule
from locallearn.recipes.catalogue import recipes
from locallearn.recipes.columns import accuracies_of
from locallearn.training import plain_settings, rule_text
from recipe_search import results_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "frontier.json"
RECOMMENDED = "narrow"
"""The search whose winner is recommended."""
FIGURE = ROOT / "docs" / "figures" / "frontier.png"
PAGE = ROOT / "docs" / "results" / "recommended.md"
TABLE = re.compile(r"^\| \| accuracy.*?(?=\n\n)", re.DOTALL | re.MULTILINE)
TABLES = ROOT / "docs" / "results" / "tables"
OTHERS = [ROOT / "docs" / "results" / f"{name}.csv" for name in ("other-settings", "micro-batches")]
"""Runs at the small budget that are in no table of a paper, as `locallearn compare --format csv` writes them."""

COSTS = ("bytes", "macs", "seconds")
PLAIN = replace(COMMON, step="together")
LEAN, LEAST = {"memory": "lean"}, {"memory": "least"}
EXACT: Mapping[str, Mapping[str, Any]] = {
    "bp": {},
    "bp, lean": LEAN,
    "checkpoint": {"rule": "checkpoint"},
    "checkpoint, lean": {"rule": "checkpoint", **LEAN},
}
"""Backpropagation's gradients, and so its accuracy."""
NEARLY_EXACT: Mapping[str, Mapping[str, Any]] = {
    "bp, accumulate 4": {"accumulate": 4},
    "checkpoint, lean, accumulate 4": {"rule": "checkpoint", "accumulate": 4, **LEAN},
    "checkpoint, lean, fp32": {"rule": "checkpoint", "precision": "fp32", **LEAN},
}
"""Batch normalisation sees a quarter of the batch, or numbers are rounded otherwise: an accuracy of their own."""
IN_MEMORY: Mapping[str, Mapping[str, Any]] = {"": {}, ", lean": LEAN, ", least": LEAST}
"""What is added to a row's name, and its settings."""
LOCAL = (
    *("predsim", "infopro", "dgl", "hilo(dgl)", "man(dgl)", "mlaan(dgl)", "auglocal(depth=4)"),
    *("hilo(dgl, independent=0)", "mlm(dgl)", "lam(dgl)"),
)


def of_tables() -> dict[str, list[float]]:
    """Test accuracies of ResNet-32 on CIFAR-10 in the reproduced tables, by rule: of every seed.

    Every layer is a module, and training and test images are CIFAR-10's.
    """
    rows = [row for file in sorted(TABLES.glob("*-small.json")) for row in read_json(file)["rows"]]
    alike = (
        row
        for row in rows
        if (row["data"], row["model"], row["modules"]) == ("cifar10", "resnet32", "all")
        and recipes()[row["recipe"]].test_data is None
        and accuracies_in(row)
    )
    return {row["rule"]: [percent / 100 for percent in accuracies_in(row)] for row in alike}


Way = tuple[str, int, str]
"""A rule as the tables write it, micro-batches, and precision."""


def of_others() -> dict[Way, list[float]]:
    """Test accuracies of every seed of the finished runs that are in no table."""
    found: dict[Way, list[float]] = {}
    for path in OTHERS:
        with path.open() as file:
            for row in csv.DictReader(file):
                way = row["rule"], int(row.get("setting_accumulate", 1)), row.get("setting_precision", PLAIN.precision)
                if row["finished"] == "True":
                    found.setdefault(way, []).append(float(row["test_accuracy"]))
    return found


def accuracies_in(row: Mapping[str, Any]) -> list[float]:
    """Accuracy of each seed in percent, by the first quantity of a row."""
    return accuracies_of(row["measured"][0]) if row["measured"] else []


def written(rule: str) -> str:
    """A rule as the tables write it."""
    return rule_text(parse_rule(rule))


def uncounted() -> list[dict[str, Any]]:
    """All rows: name, kind, changed settings, and test accuracies after the last epoch."""
    search = read_json(results_of(RECOMMENDED))
    trained, others, rows = of_tables(), of_others(), []

    def add(kind: str, name: str, changes: Mapping[str, Any], values: Sequence[float] = ()) -> None:
        rows.append({"name": name, "kind": kind, "changes": changes, "values": list(values)})

    for name, changes in EXACT.items():
        add("exact", name, changes, trained["bp"])
    for name, changes in NEARLY_EXACT.items():
        way = "bp", changes.get("accumulate", 1), changes.get("precision", PLAIN.precision)
        add("nearly exact", name, changes, others[way])
    named = {written(rule) for rule in LOCAL} | {"bp"}
    for rule in (*LOCAL, *(rule for rule in trained if rule not in named)):
        for ending, memory in IN_MEMORY.items():  # all with the same bits
            kind = "local" if written(rule) in named else "variant"
            add(kind, rule + ending, {"rule": rule, **memory}, trained[written(rule)])
    for (rule, accumulate, precision), values in others.items():
        if rule != "bp" and (accumulate, precision) == (1, PLAIN.precision):
            add("variant", rule, {"rule": rule}, values)
    first = read_json(results_of("reduced"))
    changes = {"step": COMMON.step, **settings_of(SEARCHES["reduced"][first["winner"]])}
    add("variant", "winner of the first search", changes, [run["test_accuracy"] for run in first["confirmation"]])
    changes = {"step": COMMON.step, **settings_of(SEARCHES[RECOMMENDED][search["winner"]])}
    for ending, memory in IN_MEMORY.items():
        values = [run["test_accuracy"] for run in search["confirmation"]]
        add("recommended", f"recommended{ending}", {**changes, **memory}, values)
    values = others[rule_text(changes["rule"]), 4, PLAIN.precision]
    add("recommended, nearly exact", "recommended, accumulate 4", {**changes, "accumulate": 4}, values)
    return rows


def settings_of(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings of a candidate on which the cost of its step depends."""
    return {name: candidate[name] for name in WITH_COST if name in candidate}


def counted(known: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their predicted costs, times BP's, in place of the settings.

    Args:
        known: rows whose costs are not counted again where settings are the same.
    """
    bp, rows = step_of(PLAIN), []
    common = plain_settings(PLAIN)
    for row in uncounted():
        changes = dict(row.pop("changes"))
        if isinstance(rule := changes.get("rule"), str):
            changes["rule"] = parse_rule(rule)
        settings = replace(PLAIN, **changes)
        plain = {name: value for name, value in plain_settings(settings).items() if value != common[name]}
        cost = next((one for one in known if one["settings"] == plain), None) or step_of(settings).times(bp)
        costs = {kind: cost[kind] for kind in COSTS}
        is_again = bool(rows) and row["name"].startswith(rows[-1]["name"].partition(", le")[0] + ", le")
        if not is_again or any(rows[-1][kind] != costs[kind] for kind in COSTS):
            rows.append({**row, "settings": plain, **costs})  # a leaner setting is left out where it changes nothing
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| | accuracy, % | memory, x BP | MACs, x BP | predicted time, x BP |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        values = [100 * value for value in row["values"]]
        accuracy = f"{statistics.fmean(values):.2f}" if values else ""
        if len(values) > 1:
            accuracy += f" ± {statistics.stdev(values):.2f} ({len(values)})"
        costs = [f"{row[cost]:.2f}" for cost in COSTS]
        cells = (f"`{row['name']}`", accuracy, *costs)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def best_so_far(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those points, of cost and accuracy, that no other one with less or equal cost exceeds in accuracy."""
    frontier: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not frontier or accuracy > frontier[-1][1]:
            frontier.append((cost, accuracy))
    return frontier


SHORT = {"hilo(dgl, independent=0)": "cascades of dgl"}
"""Names in the figure, where they are others."""
PLACES: Mapping[str, Mapping[str, tuple[tuple[int, int], str]]] = {
    "exact": {"bytes": ((5, 4), "left"), "seconds": ((0, 8), "left")},
    "local": dict.fromkeys(COSTS, ((5, -7), "left")),
    "recommended": {"bytes": ((14, 5), "right"), "seconds": ((5, -2), "left")},
    "dgl": {"bytes": ((-3, -8), "right"), "seconds": ((5, -7), "left")},
    "hilo(dgl, independent=0)": {"bytes": ((3, 6), "right"), "seconds": ((5, 5), "left")},
}
"""Where names stand, in points from their mark, and how they are aligned; by kind of row, or by name."""
LOOKS = {
    "exact": {"color": COLOURS[6], "marker": "s"},
    "nearly exact": {"color": COLOURS[6], "marker": "^"},
    "local": {"color": COLOURS[0], "marker": "o"},
    "variant": {"color": COLOURS[0], "marker": ".", "alpha": 0.6},
    "recommended": {"color": COLOURS[1], "marker": "D"},
    "recommended, nearly exact": {"color": COLOURS[1], "marker": "^"},
}
"""Of each kind of row."""


@print_style()
def draw(rows: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Draw accuracy over memory, and over predicted time, as PNG and SVG."""
    shown = [row for row in rows if row["values"]]
    named = {"bp", "checkpoint", *LOCAL, "recommended, least"}
    figure = new_figure(width=WIDTH, height=3.4)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, cost, label in zip(panels, ("bytes", "seconds"), ("peak memory", "predicted time"), strict=True):
        points = [(row[cost], 100 * statistics.fmean(row["values"])) for row in shown]
        sure = [point for row, point in zip(shown, points, strict=True) if len(row["values"]) > 1]
        axes.step(*zip(*best_so_far(sure), strict=True), where="post", color="#bbbbbb", zorder=1)
        for row, (x, y) in zip(shown, points, strict=True):
            looks, ending = LOOKS[row["kind"]], row["name"].rpartition(", ")[2]
            filled, small = ending not in ("lean", "least"), {"markersize": 2.5} if ending == "least" else {}
            axes.plot(x, y, markerfacecolor=looks["color"] if filled else "white", linestyle="", **looks | small)
            if row["name"] in named:
                place, side = PLACES.get(row["name"], {}).get(cost) or PLACES[row["kind"]][cost]
                text = SHORT.get(row["name"], row["name"].partition(", least")[0])
                look = {"fontsize": 6, "color": looks["color"], "textcoords": "offset points", "ha": side}
                axes.annotate(text, (x, y), place, **look)
        axes.set(xlabel=f"{label} of a step, x BP", xlim=(0, 1.2 * max(x for x, _ in points)))
    panels[0].set(ylabel="test accuracy, %")
    for ending in (".png", ".svg"):
        save(figure, target.with_suffix(ending))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="count all costs, not only those that the results lack")
    known = [] if parser.parse_args().again or not RESULTS.exists() else read_json(RESULTS)["rows"]
    rows = counted(known)
    write_json(RESULTS, {"rows": rows})
    draw(rows, FIGURE)
    old, new = TABLE.search(page := PAGE.read_text()), table(rows)
    assert old is not None, f"{PAGE} has no table"
    write_whole(PAGE, page.replace(old[0], new).encode())
    print(new)


if __name__ == "__main__":
    main()

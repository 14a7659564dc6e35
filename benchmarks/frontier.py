"""Accuracy, memory and time of every rule at the small budget: the figure and the table of docs/results/recommended.md.

python benchmarks/frontier.py            # the figure, frontier.png and .svg, and the table of the page
python benchmarks/frontier.py --again    # counts all costs, not only those that results/frontier.json lacks
"""

from __future__ import annotations

import argparse
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
LAST = "narrow"
"""The search whose winner is recommended."""
FIGURE = ROOT / "docs" / "figures" / "frontier.png"
PAGE = ROOT / "docs" / "results" / "recommended.md"
TABLE = re.compile(r"^\| \| accuracy.*?(?=\n\n)", re.DOTALL | re.MULTILINE)
ONE_CPU = ROOT / "docs" / "results" / "cifar10-small-budget.json"
ONE_GPU = ROOT / "docs" / "results" / "small-budget-gpu.json"
TABLES = ROOT / "docs" / "results" / "tables"

COSTS = ("bytes", "macs", "seconds")
PLAIN = replace(COMMON, step="together")
LEAN = {"memory": "lean"}
EXACT: Mapping[str, Mapping[str, Any]] = {
    "bp": {},
    "bp, lean": LEAN,
    "checkpoint": {"rule": "checkpoint"},
    "checkpoint, lean": {"rule": "checkpoint", **LEAN},
}
"""Backpropagation's gradients, and so its accuracy."""
NOT_TRAINED: Mapping[str, Mapping[str, Any]] = {
    "bp, accumulate 4": {"accumulate": 4},
    "checkpoint, lean, accumulate 4": {"rule": "checkpoint", "accumulate": 4, **LEAN},
    "checkpoint, lean, fp32": {"rule": "checkpoint", "precision": "fp32", **LEAN},
}
"""Batch normalisation sees a quarter of the batch, or numbers are rounded otherwise: their accuracy is not known."""
LOCAL = ("predsim", "dgl", "hilo(dgl)", "man(dgl)", "mlaan(dgl)", "auglocal(depth=4)")
ON_GPU = ("hilo(dgl, independent=0)", "mlm(dgl)", "lam(dgl)")


def of_tables() -> dict[str, tuple[list[float], str]]:
    """Test accuracies of ResNet-32 on CIFAR-10 in the reproduced tables, by rule: of every seed, on CPUs.

    Every layer is a module, and training and test images are CIFAR-10's.
    """
    rows = [row for file in sorted(TABLES.glob("*-small.json")) for row in read_json(file)["rows"]]
    alike = (
        row
        for row in rows
        if (row["data"], row["model"], row["modules"]) == ("cifar10", "resnet32", "all")
        and recipes()[row["recipe"]].test_data is None
        and accuracies_in(row)
        and "NVIDIA" not in row["device"]
    )
    return {row["rule"]: ([percent / 100 for percent in accuracies_in(row)], "CPU") for row in alike}


def accuracies_in(row: Mapping[str, Any]) -> list[float]:
    """Accuracy of each seed in percent, by the first quantity of a row."""
    return accuracies_of(row["measured"][0]) if row["measured"] else []


def written(rule: str) -> str:
    """A rule as the tables write it."""
    return rule_text(parse_rule(rule))


def uncounted() -> list[dict[str, Any]]:
    """All rows: name, kind, changed settings, test accuracies after the last epoch, and the device of these runs."""
    cpu, gpu, search = (read_json(file) for file in (ONE_CPU, ONE_GPU, results_of(LAST)))
    best = {rule: (max(run["test_accuracy"] for run in gpu["runs"] if run["rule"] == rule), "GPU") for rule in ON_GPU}
    best |= {rule: (max(run["test_accuracy"] for run in cpu[rule].values()), "CPU") for rule in LOCAL if rule in cpu}
    trained = {written(rule): ([accuracy], device) for rule, (accuracy, device) in best.items()} | of_tables()
    rows = []

    def add(kind: str, name: str, changes: Mapping[str, Any], values: Sequence[float] = (), device: str = "") -> None:
        rows.append({"name": name, "kind": kind, "changes": changes, "values": list(values), "device": device})

    for name, changes in EXACT.items():
        add("exact", name, changes, *trained["bp"])
    for name, changes in NOT_TRAINED.items():
        add("not trained", name, changes)
    for rule in (*LOCAL, *ON_GPU):
        add("local", rule, {"rule": rule}, *trained[written(rule)])
        add("local", f"{rule}, lean", {"rule": rule, **LEAN}, *trained[written(rule)])  # the same bits
    won = SEARCHES[LAST][search["winner"]]
    changes = {"step": COMMON.step, **{key: won[key] for key in WITH_COST if key in won}}
    add("recommended", "recommended", changes, [run["test_accuracy"] for run in search["confirmation"]], "CPU")
    add("not trained", "recommended, accumulate 4", {**changes, "accumulate": 4})
    return rows


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
        rows.append({**row, "settings": plain, **{kind: cost[kind] for kind in COSTS}})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| | accuracy, % | memory, x BP | MACs, x BP | predicted time, x BP |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        values = [100 * value for value in row["values"]]
        accuracy = f"{statistics.fmean(values):.2f}" if values else ""
        if len(values) > 1:
            accuracy += f" ± {statistics.stdev(values):.2f} ({len(values)})"
        mark = " *" if row["device"] == "GPU" else ""
        costs = [f"{row[cost]:.2f}" for cost in COSTS]
        cells = (f"`{row['name']}`", accuracy + mark, *costs)
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
LOOKS = {
    "exact": {"color": COLOURS[6], "marker": "s"},
    "local": {"color": COLOURS[0], "marker": "o"},
    "recommended": {"color": COLOURS[1], "marker": "D"},
}
"""Of each kind of row."""


@print_style()
def draw(rows: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Draw accuracy over memory, and over multiply-accumulates, as PNG and SVG."""
    shown = [row for row in rows if row["values"]]
    figure = new_figure(width=WIDTH, height=3.4)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, cost, label in zip(panels, ("bytes", "macs"), ("peak memory", "multiply-accumulates"), strict=True):
        points = [(row[cost], 100 * statistics.fmean(row["values"])) for row in shown]
        axes.step(*zip(*best_so_far(points), strict=True), where="post", color="#bbbbbb", zorder=1)
        for row, (x, y) in zip(shown, points, strict=True):
            looks, lean = LOOKS[row["kind"]], row["name"].endswith(", lean")
            axes.plot(x, y, markerfacecolor="white" if lean else looks["color"], linestyle="", **looks)
            if not lean:
                text = SHORT.get(row["name"], row["name"])
                place = (
                    (5, 3) if row["name"] in SHORT else {"local": (5, -7), "exact": (5, 4)}.get(row["kind"], (5, -2))
                )
                is_left = row["kind"] == "recommended" and axes is panels[0]  # exact ones are on its right there
                place, side = ((-5, -2), "right") if is_left else (place, "left")
                axes.annotate(
                    text, (x, y), place, ha=side, textcoords="offset points", fontsize=6, color=looks["color"]
                )
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

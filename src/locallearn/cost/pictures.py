"""Pictures: the bytes of a step as bars, and a plan as points of memory and time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from locallearn._figures.style import COLOURS, PAGE, new_figure, print_style, save
from locallearn._planning.depths import depth_text
from locallearn._utils.optional_imports import optional
from locallearn._utils.quantities import counted
from locallearn.cost.by_module import ModuleBytes
from locallearn.cost.planner import Plan

_MIB = 2**20
_COLOURS = {
    "alive before": "#BBBBBB",
    "saved by the module": COLOURS[0],
    "its auxiliary network adds": COLOURS[4],
    "its backward pass adds": COLOURS[2],
    "weights": COLOURS[3],
    "gradients": COLOURS[1],
}


@print_style()
def draw_bytes(rows: Sequence[ModuleBytes], path: Path, *, title: str = "") -> None:
    """Draw for each module a bar of activations and a bar of weights and gradients.

    The auxiliary network and the backward pass run one after the other, so both of their bars begin at the height of
    the saved activations.

    Args:
        rows: from `bytes_by_module`.
        path: a file whose ending gives its format: .png, .svg, .pdf ...
        title: the title.
    """
    figure = new_figure(width=max(PAGE, 0.28 * len(rows) + 3), height=3.6)
    axes = figure.subplots()
    for index, row in enumerate(rows):
        before, saved = row.before / _MIB, row.saved / _MIB
        auxiliary, backward = row.auxiliary / _MIB, row.backward / _MIB
        left, middle, right = index - 0.22, index - 0.02, index + 0.28
        axes.bar(left + 0.1, before, 0.4, color=_COLOURS["alive before"])
        axes.bar(left + 0.1, saved, 0.4, bottom=before, color=_COLOURS["saved by the module"])
        axes.bar(left, auxiliary, 0.2, bottom=before + saved, color=_COLOURS["its auxiliary network adds"])
        axes.bar(middle, backward, 0.2, bottom=before + saved, color=_COLOURS["its backward pass adds"])
        axes.bar(right, row.weights / _MIB, 0.16, color=_COLOURS["weights"])
        axes.bar(right, row.gradients / _MIB, 0.16, bottom=row.weights / _MIB, color=_COLOURS["gradients"])
    step = max(1, len(rows) // 28)
    axes.set_xticks(range(0, len(rows), step), [_name(row) for row in rows[::step]])
    axes.set(xlabel="local module", ylabel="MiB", title=title)
    handles = [optional("matplotlib.patches").Patch(color=colour, label=name) for name, colour in _COLOURS.items()]
    axes.legend(handles=handles)
    save(figure, path)


@print_style()
def draw_plan(plan: Plan, path: Path, *, title: str = "") -> None:
    """Draw peak memory and predicted time of a plan's candidates and of its baselines.

    Args:
        plan: from `plan`.
        path: a file whose ending gives its format.
        title: the title.
    """
    figure = new_figure(width=PAGE, height=4.2)
    axes = figure.subplots()
    bp = plan.baselines[0].seconds
    places = {id(one): (one.peak / _MIB, one.seconds / bp) for one in (*plan.candidates, *plan.baselines)}
    several = len({type(one.rule) for one in plan.candidates}) > 1
    look = "o" if several else "o-"
    axes.plot(*zip(*(places[id(one)] for one in plan.candidates), strict=True), look, color=COLOURS[0])
    axes.plot(*zip(*(places[id(one)] for one in plan.baselines), strict=True), "s", color=COLOURS[6])
    axes.plot(*places[id(plan.best)], "o", markersize=12, markerfacecolor="none", markeredgecolor=COLOURS[4])
    axes.axvline(plan.budget / _MIB, color=COLOURS[1], linestyle="--", linewidth=1, label="budget")
    for one in plan.candidates:
        label = f"{one.rule}, " * several + f"{counted(len(one.modules), 'module')}, {one.memory}{depth_text(one.rule)}"
        axes.annotate(label, places[id(one)], xytext=(5, 5), textcoords="offset points", fontsize=7)
    for one in plan.baselines:
        axes.annotate(str(one.rule), places[id(one)], xytext=(5, 5), textcoords="offset points", fontsize=7)
    axes.set(xlabel="predicted peak in total, MiB", ylabel="predicted time x BP", title=title)
    axes.margins(x=0.15, y=0.15)
    axes.set_xlim(left=0)
    axes.legend()
    save(figure, path)


def _name(row: ModuleBytes) -> str:
    return f"{row.first}" if row.first == row.last else f"{row.first}-{row.last}"

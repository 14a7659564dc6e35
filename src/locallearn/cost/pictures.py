"""Where the bytes of a step are, as a picture of bars."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from locallearn._planning.depths import depth_text
from locallearn._utils.atomic_files import write_whole
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.optional_imports import optional
from locallearn.cost.by_module import ModuleBytes
from locallearn.cost.planner import Plan

_MIB = 2**20
_COLOURS = {
    "alive before": "#b8c4d0",
    "kept by the module": "#3b6fb6",
    "its auxiliary network adds": "#e08a1e",
    "its backward pass adds": "#4c9a6a",
    "weights": "#8d6bb0",
    "gradients": "#c2547a",
}


def draw_bytes(rows: Sequence[ModuleBytes], path: Path, *, title: str = "") -> None:
    """Draw for each module a bar of activations and one of its weights and their gradients.

    The two things that a module adds to what it keeps come one after the other, so they stand one over the other, each
    from the same height.

    Args:
        rows: from `bytes_by_module`.
        path: a file whose ending says its format: .png, .svg, .pdf ...
        title: above the picture.
    """
    figure = optional("matplotlib.figure").Figure(figsize=(max(6.0, 0.28 * len(rows) + 3), 4.2), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(rows):
        before, kept = row.before / _MIB, row.kept / _MIB
        auxiliary, backward = row.auxiliary / _MIB, row.backward / _MIB
        left, middle, right = index - 0.22, index - 0.02, index + 0.28
        axes.bar(left + 0.1, before, 0.4, color=_COLOURS["alive before"])
        axes.bar(left + 0.1, kept, 0.4, bottom=before, color=_COLOURS["kept by the module"])
        axes.bar(left, auxiliary, 0.2, bottom=before + kept, color=_COLOURS["its auxiliary network adds"])
        axes.bar(middle, backward, 0.2, bottom=before + kept, color=_COLOURS["its backward pass adds"])
        axes.bar(right, row.weights / _MIB, 0.16, color=_COLOURS["weights"])
        axes.bar(right, row.gradients / _MIB, 0.16, bottom=row.weights / _MIB, color=_COLOURS["gradients"])
    step = max(1, len(rows) // 28)
    axes.set_xticks(range(0, len(rows), step), [_name(row) for row in rows[::step]])
    axes.set(xlabel="local module", ylabel="MiB", title=title)
    handles = [optional("matplotlib.patches").Patch(color=colour, label=name) for name, colour in _COLOURS.items()]
    axes.legend(handles=handles, fontsize="small", frameon=False)
    save(figure, path)


def draw_plan(plan: Plan, path: Path, *, title: str = "") -> None:
    """Draw peak memory and predicted time of a plan's candidates and of the baselines.

    Args:
        plan: from `plan`.
        path: a file whose ending says its format.
        title: above the picture.
    """
    figure = optional("matplotlib.figure").Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    bp = plan.baselines[0].seconds
    places = {id(one): (one.peak / _MIB, one.seconds / bp) for one in (*plan.candidates, *plan.baselines)}
    axes.plot(*zip(*(places[id(one)] for one in plan.candidates), strict=True), "o-", color="#3b6fb6")
    axes.plot(*zip(*(places[id(one)] for one in plan.baselines), strict=True), "s", color="#777777")
    axes.plot(*places[id(plan.best)], "o", markersize=12, markerfacecolor="none", markeredgecolor="#e08a1e")
    axes.axvline(plan.budget / _MIB, color="#c2547a", linestyle="--", linewidth=1, label="budget")
    for one in plan.candidates:
        label = f"{len(one.modules)} modules, {one.memory}{depth_text(one.rule)}"
        axes.annotate(label, places[id(one)], xytext=(5, 5), textcoords="offset points", fontsize=7)
    for one in plan.baselines:
        axes.annotate(str(one.rule), places[id(one)], xytext=(5, 5), textcoords="offset points", fontsize=7)
    axes.set(xlabel="predicted peak in total, MiB", ylabel="predicted time x BP", title=title)
    axes.margins(x=0.15, y=0.15)
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure as a whole file, in the format that its ending says."""
    kind = path.suffix.lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise LocalLearnError(f"{path}: a picture's name must end in one of {', '.join(f'.{k}' for k in known)}.")
    memory = BytesIO()
    figure.savefig(memory, format=kind, dpi=150)
    write_whole(path, memory.getvalue())


def _name(row: ModuleBytes) -> str:
    return f"{row.first}" if row.first == row.last else f"{row.first}-{row.last}"

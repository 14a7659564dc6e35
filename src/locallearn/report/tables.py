"""The tables of the page, as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from locallearn._utils.quantities import counted
from locallearn.report.groups import (
    Group,
    Spread,
    baseline_of,
    common_settings,
    differing_settings,
    setting_text,
)
from locallearn.report.runs import Run, names_of
from locallearn.report.steps import StepRecord
from locallearn.training import chosen_on

_NOTHING = "-"
_AGAINST_BP = (
    "Behind BP and x BP: against backpropagation on the same data, network, image size, epochs, batch and number of"
    " training images."
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell.

    Attributes:
        text: what it says.
        note: in small letters below.
        best: whether it is the best of its column.
    """

    text: str
    note: str = ""
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        caption: what it shows.
        columns: headings.
        rows: cells; the first one is the row's name.
        numbers: whether the cells after the first are numbers.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: bool = False


def summary(groups: Sequence[Group], steps: Mapping[str, StepRecord]) -> Table:
    """Accuracy and cost of each group; means and standard deviations where it has several seeds."""
    bps = [baseline_of(group, groups) for group in groups]
    has_bp = any(bp is not None for bp in bps)
    columns: dict[str, list[Cell]] = {"test accuracy": _accuracies(groups, [group.accuracy for group in groups])}
    if has_bp and len(groups) > 1:
        columns["behind BP, points"] = [_behind(group, bp) for group, bp in zip(groups, bps, strict=True)]
    columns[_best_heading(groups)] = _accuracies(groups, [group.best_accuracy for group in groups])
    top5 = [value for group in groups if (value := group.top5_accuracy) is not None]
    if len(top5) == len(groups):
        columns["top-5 accuracy"] = _accuracies(groups, top5)
    peaks = [group.result("peak_activation_bytes") for group in groups]
    columns["peak activations, MiB"] = _ratios(
        [None if p is None else p / 2**20 for p in peaks], groups, bps, "{:,.1f}"
    )
    times = _ratios([group.seconds.mean for group in groups], groups, bps, "{:,.3g}")
    columns["time of an epoch, s"] = [_with_deviation(cell, g.seconds) for cell, g in zip(times, groups, strict=True)]
    macs = [steps[group.label].macs / 1e6 if group.label in steps else None for group in groups]
    if any(value is not None for value in macs):
        columns["forward pass, million MACs"] = _ratios(macs, groups, bps, "{:,.1f}")
    columns["parameters"] = [_parameters(group) for group in groups]
    names = [Cell(text=group.label, note=_about(group, groups)) for group in groups]
    several = "Means ± standard deviations over seeds. " if any(len(group.runs) > 1 for group in groups) else ""
    ratio = f" {_AGAINST_BP}" if has_bp else ""
    return Table(
        caption=f"{several}Accuracy on the test images; MACs of one image through backbone and auxiliary heads.{ratio}",
        columns=("run", *columns),
        rows=tuple(zip(names, *columns.values(), strict=True)),
        numbers=True,
    )


def settings_that_differ(runs: Sequence[Run]) -> Table | None:
    """The settings by which runs differ; None where they are equal."""
    different = differing_settings(runs)
    if not different:
        return None
    rows = [
        (Cell(text=name), *(Cell(text=setting_text(values[index])) for values in different.values()))
        for index, name in enumerate(names_of([run.path for run in runs]))
    ]
    return Table(caption="Settings that differ, by run folder.", columns=("run", *different), rows=tuple(rows))


def settings_in_common(runs: Sequence[Run]) -> Table:
    """The settings that all runs share."""
    rows = [(Cell(text=name), Cell(text=setting_text(value))) for name, value in common_settings(runs).items()]
    return Table(caption="Settings that all runs share.", columns=("setting", "value"), rows=tuple(rows))


def versions(runs: Sequence[Run]) -> Table:
    """Versions and machines; a value that all runs share is written once."""
    values = [_environment(run) for run in runs]
    folders = names_of([run.path for run in runs])
    rows = []
    for name in dict.fromkeys(name for one in values for name in one):
        own = [one.get(name, _NOTHING) for one in values]
        distinct = dict.fromkeys(own)
        if len(distinct) == 1:
            rows.append((Cell(text=name), Cell(text=own[0]), Cell(text="all runs")))
        for value in distinct if len(distinct) > 1 else ():
            who = ", ".join(folder for folder, one in zip(folders, own, strict=True) if one == value)
            rows.append((Cell(text=name), Cell(text=value), Cell(text=who)))
    return Table(caption="Versions and machines.", columns=("what", "value", "runs"), rows=tuple(rows))


def _environment(run: Run) -> dict[str, str]:
    found = run.environment.get("versions", {})
    own = {str(name): str(version) for name, version in found.items()} if isinstance(found, dict) else {}
    rest = ("python", "platform", "device", "threads")
    return own | {name: str(run.environment[name]) for name in rest if name in run.environment}


def _best_heading(groups: Sequence[Group]) -> str:
    chosen = dict.fromkeys(chosen_on(run.rows) for group in groups for run in group.runs)
    return "best of all epochs" if list(chosen) == ["test"] else f"best epoch, by {' or '.join(chosen)} images"


def _accuracies(groups: Sequence[Group], values: Sequence[Spread]) -> list[Cell]:
    """Accuracies, of each data set the best one marked."""
    means: dict[str, set[float]] = {}
    for group, value in zip(groups, values, strict=True):
        means.setdefault(group.settings.data, set()).add(value.mean)
    own = [means[group.settings.data] for group in groups]
    return [
        Cell(text=value.percent, best=len(others) > 1 and value.mean == max(others))
        for value, others in zip(values, own, strict=True)
    ]


def _behind(group: Group, bp: Group | None) -> Cell:
    if bp is None or bp is group:
        return Cell(text=_NOTHING)
    return Cell(text=f"{group.points_behind(bp):.2f}")


def _with_deviation(cell: Cell, value: Spread) -> Cell:
    return Cell(text=f"{cell.text} ± {value.deviation:.2g}", note=cell.note) if value.runs > 1 else cell


def _ratios(values: Sequence[Any], groups: Sequence[Group], bps: Sequence[Group | None], form: str) -> list[Cell]:
    cells = []
    for value, group, bp in zip(values, groups, bps, strict=True):
        base = None if bp is None or bp is group else values[groups.index(bp)]
        ratio = f"{value / base:.2f} x BP" if value is not None and base else ""
        cells.append(Cell(text=_NOTHING if value is None else form.format(value), note=ratio))
    return cells


def _parameters(group: Group) -> Cell:
    backbone, auxiliary = (group.result(f"{part}_parameters") for part in ("backbone", "auxiliary"))
    if backbone is None or auxiliary is None:
        return Cell(text=_NOTHING)
    note = f"+ {auxiliary:,.0f} auxiliary" if auxiliary else ""
    return Cell(text=f"{backbone:,.0f}", note=note)


def _about(group: Group, groups: Sequence[Group]) -> str:
    settings = group.settings
    parts = [
        str(getattr(settings, name))
        for name in ("data", "model")
        if len({getattr(other.settings, name) for other in groups}) > 1
    ]
    seeds = ", ".join(str(run.settings.seed) for run in group.runs)
    parts.append(f"seeds {seeds}" if len(group.runs) > 1 else f"seed {seeds}")
    if not group.finished:
        parts.append(f"unfinished: {group.epochs} of {counted(settings.epochs, 'epoch')}")
    return "; ".join(parts)

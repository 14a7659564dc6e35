"""What the layers learned: linear probes and similarities, from the results of `locallearn analyze`."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path

from locallearn.analysis import CKA
from locallearn.report.charts.chart import Axis
from locallearn.report.charts.heat_map import HeatMap
from locallearn.report.charts.lines import Line, LineChart
from locallearn.report.figures.training import ACCURACY
from locallearn.report.groups import Group

_LAYERS = Axis(label="layer", whole=True)


def probes(groups: Sequence[Group]) -> LineChart | None:
    """Test accuracy of a linear classifier after each layer, by run; None where no run was probed."""
    lines, heads = [], []
    names: tuple[str, ...] = ()
    for group in groups:
        found = next((run.analyses.probes for run in group.runs if run.analyses.probes is not None), None)
        if found is None:
            continue
        names = max(names, found.layers, key=len)
        numbers = {layer: number for number, layer in enumerate(found.layers, 1)}
        lines.append(_line(group, found.accuracy))
        own = [(numbers[layer], accuracy) for layer, accuracy in found.heads.items() if layer in numbers]
        if own:
            x, y = zip(*own, strict=True)
            heads.append(Line(label=f"heads of {group.label}", x=x, y=y, look=group.look))
    if not lines:
        return None
    circles = " Open circles are the modules' own auxiliary heads." if heads else ""
    return LineChart(
        name="probes",
        title="Linear probes",
        caption="Test accuracy of a linear classifier trained on the frozen output of each layer (AugLocal and HPFF,"
        f" Fig. 4; MAN and MLAAN, Fig. 6).{circles}",
        x=_LAYERS,
        y=ACCURACY,
        lines=tuple(lines),
        points=tuple(heads),
        x_names=names,
    )


def similarity_by_layer(groups: Sequence[Group]) -> dict[str, LineChart]:
    """CKA of equal layers with another run, by the name of that run."""
    lines: dict[str, list[Line]] = {}
    names: dict[str, tuple[str, ...]] = {}
    for group, folder, found in _similarities(groups):
        against = _name(folder, groups)
        if len(found.per_layer) and all(line.look != group.look for line in lines.get(against, [])):
            lines.setdefault(against, []).append(_line(group, found.per_layer.tolist()))
            names[against] = max(names.get(against, ()), found.layers, key=len)
    return {
        against: LineChart(
            name=f"cka-layers-{number}",
            title=f"Similarity to {against}, layer by layer",
            caption=f"Linear CKA of each layer with the same layer of {against} (AugLocal, Fig. 3; HPFF, Fig. 5; MAN"
            " and MLAAN, Fig. 7); 1 is the same representation up to rotation and scale.",
            x=_LAYERS,
            y=Axis(label=f"linear CKA with {against}", zero=True),
            lines=tuple(own),
            x_names=names[against],
        )
        for number, (against, own) in enumerate(lines.items())
    }


def similarity_maps(groups: Sequence[Group]) -> dict[str, HeatMap]:
    """CKA of all pairs of layers, by the names of both runs."""
    maps: dict[str, HeatMap] = {}
    for number, (group, folder, found) in enumerate(_similarities(groups)):
        against = _name(folder, groups)
        maps.setdefault(
            f"{group.label} and {against}",
            HeatMap(
                name=f"cka-map-{number}",
                title=f"Similarity of all layers: {group.label} and {against}",
                caption=f"Linear CKA of each layer of {group.label} with each layer of {against}.",
                x=Axis(label=f"layer of {against}", whole=True),
                y=Axis(label=f"layer of {group.label}", whole=True),
                matrix=tuple(map(tuple, found.matrix.tolist())),
                value="linear CKA",
                limits=(0.0, 1.0),
                x_names=found.against_layers,
                y_names=found.layers,
            ),
        )
    return maps


def _similarities(groups: Sequence[Group]) -> list[tuple[Group, Path, CKA]]:
    runs = [(group, run.analyses) for group in groups for run in group.runs]
    return [(group, folder, found) for group, own in runs for folder, found in own.similarities.items()]


def _name(folder: Path, groups: Sequence[Group]) -> str:
    """The label of the other run, with its seed if there are several; or its folder, if it is not on the page."""
    path = folder.resolve()
    for group in groups:
        for run in group.runs:
            if run.path.resolve() == path:
                return group.label if len(group.runs) == 1 else f"{group.label}, seed {run.settings.seed}"
    return folder.name


def _line(group: Group, values: Sequence[float]) -> Line:
    known = [(float(number), value) for number, value in enumerate(values, 1) if not isnan(value)]
    x, y = zip(*known, strict=True) if known else ((), ())
    return Line(label=group.label, x=x, y=y, look=group.look)

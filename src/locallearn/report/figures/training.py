"""Curves of training: accuracy, losses and learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any

from locallearn.report.charts.chart import Axis, Chart
from locallearn.report.charts.heat_map import HeatMap
from locallearn.report.charts.lines import Line, LineChart
from locallearn.report.groups import Group, spread
from locallearn.report.runs import Run

EPOCHS = Axis(label="epoch", whole=True)
ACCURACY = Axis(label="test accuracy", percent=True)
_MOST_LINES = 8
"""Losses of more objectives are a heat map."""


def accuracy_against_epoch(groups: Sequence[Group]) -> LineChart:
    """Test accuracy after each epoch (MAN and MLAAN, Fig. 4)."""
    return LineChart(
        name="accuracy-epoch",
        title="Accuracy against epoch",
        **with_bands("Test accuracy of the backbone after each epoch (MAN and MLAAN, Fig. 4).", groups),
        x=EPOCHS,
        y=ACCURACY,
        lines=tuple(_over_epochs(group, _column("test_accuracy")) for group in groups),
    )


def accuracy_against_time(groups: Sequence[Group]) -> LineChart:
    """Test accuracy against the time spent on training."""
    return LineChart(
        name="accuracy-time",
        title="Accuracy against time",
        **with_bands("Test accuracy against wall time of training alone, on the device of each run.", groups),
        x=_time_axis(groups),
        y=ACCURACY,
        lines=tuple(_over_time(group, _time_unit(groups)[0]) for group in groups),
    )


def output_loss(groups: Sequence[Group]) -> LineChart:
    """Training loss of the backbone's own output, on a logarithmic axis (AugLocal, Fig. 6)."""
    return LineChart(
        name="output-loss",
        title="Output loss",
        **with_bands(
            "Training loss of the last objective, which ends in the backbone's classifier; mean of each epoch"
            " (AugLocal, Fig. 6).",
            groups,
        ),
        x=EPOCHS,
        y=Axis(label="training loss", log=_all_positive(groups)),
        lines=tuple(_over_epochs(group, _column("train_loss")) for group in groups),
    )


def learning_rate(groups: Sequence[Group]) -> LineChart:
    """Learning rate of the last step of each epoch."""
    return LineChart(
        name="learning-rate",
        title="Learning rate",
        caption="Learning rate of the last step of each epoch.",
        x=EPOCHS,
        y=Axis(label="learning rate", zero=True),
        lines=tuple(_over_epochs(group, _column("lr")) for group in groups),
    )


def module_losses(groups: Sequence[Group], spans: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, Chart]:
    """For each group the training loss of every objective over the epochs.

    Args:
        groups: the groups.
        spans: of each, if they are known, the first and the last module of every objective, by which these are named.
    """
    return {group.label: _module_losses(group, spans.get(group.label, ())) for group in groups}


def _module_losses(group: Group, spans: Sequence[tuple[int, int]]) -> Chart:
    rows = group.over_epochs(lambda run: [row["losses"] for row in run.rows])  # pyright: ignore[reportArgumentType]
    means = [[fmean(values) for values in zip(*per_run, strict=True)] for per_run in rows]
    losses = list(zip(*means, strict=True))
    names = _objective_names(len(losses), spans)
    epochs = tuple(float(epoch) for epoch in range(1, len(means) + 1))
    name, title = f"module-losses-{group.look}", f"Loss of each module: {group.label}"
    caption = "Training loss of each objective, by the local modules that it covers; the last one is the backbone's."
    if len(losses) > _MOST_LINES:
        return HeatMap(
            name=name,
            title=title,
            caption=caption,
            x=EPOCHS,
            y=Axis(label="objective, first to last", whole=True),
            matrix=tuple(losses),
            value="training loss",
            y_names=tuple(names),
            first_row=0,
            x_names=tuple(f"epoch {epoch:.0f}" for epoch in epochs),
        )
    positive = all(value > 0 for values in losses for value in values)
    return LineChart(
        name=name,
        title=title,
        caption=caption,
        x=EPOCHS,
        y=Axis(label="training loss", log=positive),
        lines=tuple(
            Line(label=label, x=epochs, y=values, look=look)
            for look, (label, values) in enumerate(zip(names, losses, strict=True))
        ),
    )


def _objective_names(count: int, spans: Sequence[tuple[int, int]]) -> list[str]:
    if len(spans) != count:
        return [f"objective {number}" for number in range(count)]
    return [f"module {first}" if first == last else f"modules {first} to {last}" for first, last in spans]


def _column(name: str) -> Callable[[Run], list[float]]:
    return lambda run: [row[name] for row in run.rows]


def _seconds(run: Run) -> list[float]:
    return list(accumulate(row["seconds"] for row in run.rows))


def _over_epochs(group: Group, metric: Callable[[Run], Sequence[float]]) -> Line:
    values = group.over_epochs(metric)
    return _line(group, [float(epoch) for epoch in range(1, len(values) + 1)], values)


def _over_time(group: Group, unit: float) -> Line:
    seconds = [fmean(values) / unit for values in group.over_epochs(_seconds)]
    return _line(group, seconds, group.over_epochs(_column("test_accuracy")))


def _line(group: Group, x: Sequence[float], values: Sequence[Sequence[float]]) -> Line:
    several, spreads = len(group.runs) > 1, [spread(own) for own in values]
    lows = (  # above zero, for a logarithmic axis
        own.mean - own.deviation if own.mean > own.deviation else min(each)
        for own, each in zip(spreads, values, strict=True)
    )
    return Line(
        label=group.label,
        x=tuple(x),
        y=tuple(own.mean for own in spreads),
        low=tuple(lows) if several else (),
        high=tuple(own.mean + own.deviation for own in spreads) if several else (),
        look=group.look,
    )


def _time_unit(groups: Sequence[Group]) -> tuple[float, str]:
    longest = max(_seconds(run)[-1] for group in groups for run in group.runs)
    return next(((size, name) for size, name in ((3600.0, "h"), (60.0, "min")) if longest > 2 * size), (1.0, "s"))


def _time_axis(groups: Sequence[Group]) -> Axis:
    return Axis(label=f"training time, {_time_unit(groups)[1]}", zero=True)


def with_bands(caption: str, groups: Sequence[Group]) -> dict[str, Any]:
    """A chart's caption, and what its bands are where there are any."""
    if all(len(group.runs) == 1 for group in groups):
        return {"caption": caption}
    bands = "Lines: means over seeds; bands: ± standard deviation."
    return {"caption": f"{caption} {bands}", "bands": bands}


def _all_positive(groups: Sequence[Group]) -> bool:
    return all(row["train_loss"] > 0 for group in groups for run in group.runs for row in run.rows)

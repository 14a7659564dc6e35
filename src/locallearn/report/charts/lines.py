"""Lines over an axis: curves of training, memory over a step, accuracy over layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from locallearn._figures.style import line_styles, print_style
from locallearn.report.charts.chart import (
    Axis,
    Chart,
    figure_above_legend,
    for_plotly,
    legend_below,
    plotly,
    shortened,
)

_PLOTLY_DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
_PLOTLY_MARKERS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "<": "triangle-left",
}
_MANY_POINTS = 25
"""From which on a line has a marker at some points alone."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line.

    Attributes:
        label: its name in the legend.
        x, y: its points.
        low, high: a band around it, of a single point an error bar; or nothing.
        look: number of its colour, dashes and marker; the same in every chart of a page.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    look: int = 0


@dataclass(frozen=True, kw_only=True)
class LineChart(Chart):
    """Lines over an axis.

    Attributes:
        x, y: the axes.
        lines: the lines.
        points: points without a line, drawn as open circles in the colour of their look.
        bands: what lines and bands are, in the words of the printed legend; or nothing.
        steps: whether a value holds until the next point; such lines have no markers.
        x_names: names of the whole numbers from 1 on the x axis, shown at a point; or nothing.
    """

    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    points: tuple[Line, ...] = ()
    bands: str = ""
    steps: bool = False
    x_names: tuple[str, ...] = ()

    @property
    def alt(self) -> str:
        values = (f"{shortened(line.label)} {self._summary(line)}" for line in self.lines if line.y)
        what = "Largest values" if self.steps else "Last values"
        return f"{self.title}: {self.y.label} against {self.x.label}. {what}: {', '.join(values)}."

    def _summary(self, line: Line) -> str:
        return self.y.text(max(line.y) if self.steps else line.y[-1])

    @print_style()
    def print_figure(self) -> Any:
        labels = [line.label for line in self.lines]
        figure = figure_above_legend([*labels, ""] if self.bands else labels)
        axes = figure.subplots()
        looks, handles = self._looks(), []
        for line in self.lines:
            look = dict(looks[line.look])
            if self.steps:
                look |= {"marker": "", "drawstyle": "steps-post", "linewidth": 0.9}
            elif len(line.x) > _MANY_POINTS:
                look["markevery"] = (line.look % 5, len(line.x) // 8)
            handles += axes.plot(line.x, line.y, **look)
            if line.low and len(line.x) == 1:
                axes.errorbar(line.x, line.y, _from_line(line), fmt="none", ecolor=look["color"], capsize=2)
            elif line.low:
                axes.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.18, linewidth=0)
        for line in self.points:
            axes.plot(line.x, line.y, "o", markersize=5, fillstyle="none", color=looks[line.look]["color"])
        self.x.on_print(axes, "x")
        self.y.on_print(axes, "y")
        legend_below(figure, handles, labels, **({"title": self.bands, "title_fontsize": 7} if self.bands else {}))
        return figure

    def plotly_figure(self) -> Any:
        looks = self._looks()
        traces = [trace for line in self.lines for trace in self._traces(line, looks[line.look])]
        for line in self.points:
            look = looks[line.look]
            marker = {"color": look["color"], "symbol": "circle-open", "size": 10}
            traces.append(self._trace(line, mode="markers", marker=marker, showlegend=False))
        return plotly(traces, x=self.x, y=self.y)

    def _traces(self, line: Line, look: dict[str, Any]) -> Sequence[dict[str, Any]]:
        drawn: dict[str, Any] = {"color": look["color"], "width": 2}
        drawn["dash"] = _PLOTLY_DASHES.get(look["linestyle"], "longdashdot")
        if self.steps:
            drawn |= {"shape": "hv", "width": 1.5}
        marker = {"color": look["color"], "symbol": _PLOTLY_MARKERS[look["marker"]], "size": 6}
        has_markers = not self.steps and len(line.x) <= _MANY_POINTS
        mode = "lines+markers" if has_markers else "lines"
        main = self._trace(line, mode=mode, line=drawn, **({"marker": marker} if has_markers else {}))
        if not line.low:
            return [main]
        if len(line.x) == 1:
            below, above = _from_line(line)
            bar = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": look["color"]}
            return [main | {"error_y": bar}]
        edge = {"x": line.x, "mode": "lines", "line": {"width": 0, "color": look["color"]}}
        quiet = {"legendgroup": main["legendgroup"], "showlegend": False, "hoverinfo": "skip"}
        fill = {"fill": "tonexty", "fillcolor": _translucent(look["color"])}
        return [{**edge, **quiet, "y": line.low}, {**edge, **quiet, **fill, "y": line.high}, main]

    def _trace(self, points: Line, **more: Any) -> dict[str, Any]:
        name = for_plotly(shortened(points.label))
        trace = {"x": points.x, "y": points.y, "name": name, "legendgroup": name, **more}
        if self.x_names:
            trace["text"] = [for_plotly(self.x_names[round(x) - 1]) for x in points.x]
        return trace

    def _looks(self) -> list[dict[str, Any]]:
        return line_styles(1 + max((line.look for line in (*self.lines, *self.points)), default=0))


def _from_line(line: Line) -> tuple[list[float], list[float]]:
    """How far the band goes below the line and above it."""
    bands = zip(line.low, line.y, line.high, strict=True)
    below, above = zip(*((y - low, high - y) for low, y, high in bands), strict=True)
    return list(below), list(above)


def _translucent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"

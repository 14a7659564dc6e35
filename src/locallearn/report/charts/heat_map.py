"""A heat map: a matrix as colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from locallearn._figures.style import new_figure, print_style
from locallearn.report.charts.chart import Axis, Chart, for_plotly, for_print, plotly


@dataclass(frozen=True, kw_only=True)
class HeatMap(Chart):
    """A matrix as colours.

    Attributes:
        x, y: the axes, of columns and of rows; the first row is at the bottom.
        matrix: the values.
        value: the quantity and its unit.
        limits: of the colours; by default those of the values.
        x_names, y_names: names of columns and rows, shown at a cell; or nothing.
        first_row: the number of the first row; columns are counted from 1.
    """

    x: Axis
    y: Axis
    matrix: tuple[tuple[float, ...], ...]
    value: str
    limits: tuple[float, float] | None = None
    x_names: tuple[str, ...] = ()
    y_names: tuple[str, ...] = ()
    first_row: int = 1

    @property
    def alt(self) -> str:
        values = [value for row in self.matrix for value in row if value == value]
        size = f"{len(self.matrix)} by {len(self.matrix[0])}"
        between = f", from {min(values):.3g} to {max(values):.3g}" if values else ""
        return f"{self.title}: {self.value} by {self.y.label} and {self.x.label}, {size} values{between}."

    @print_style()
    def print_figure(self) -> Any:
        figure = new_figure(height=2.7)
        axes = figure.subplots()
        rows, columns = len(self.matrix), len(self.matrix[0])
        look = {"origin": "lower", "aspect": "auto", "cmap": "viridis"}
        low, high = self.limits or (None, None)
        extent = (0.5, columns + 0.5, self.first_row - 0.5, self.first_row + rows - 0.5)
        image = axes.imshow(self.matrix, extent=extent, vmin=low, vmax=high, interpolation="nearest", **look)
        axes.grid(visible=False)
        self.x.on_print(axes, "x")
        self.y.on_print(axes, "y")
        bar = figure.colorbar(image, ax=axes)
        bar.outline.set_visible(False)
        bar.set_label(for_print(self.value))
        return figure

    def plotly_figure(self) -> Any:
        rows, columns = len(self.matrix), len(self.matrix[0])
        x_names = self.x_names or tuple(map(str, range(1, columns + 1)))
        y_names = self.y_names or tuple(map(str, range(self.first_row, self.first_row + rows)))
        hover = [[f"{for_plotly(y)}, {for_plotly(x)}" for x in x_names] for y in y_names]
        low, high = self.limits or (None, None)
        trace = {
            "type": "heatmap",
            "z": self.matrix,
            "zmin": low,
            "zmax": high,
            "colorscale": "Viridis",
            "x0": 1,
            "dx": 1,
            "y0": self.first_row,
            "dy": 1,
            "text": hover,
            "hovertemplate": "%{text}<br>%{z:.3g}<extra></extra>",
            "colorbar": {"title": {"text": for_plotly(self.value), "side": "right"}, "thickness": 12},
        }
        return plotly([trace], x=self.x, y=self.y)

"""Bubbles: two quantities by their place, a third by their area."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from locallearn._figures.style import COLOURS, print_style
from locallearn._utils.optional_imports import optional
from locallearn.report.charts.chart import Axis, Chart, figure_above_legend, for_plotly, legend_below, plotly, shortened

_LARGEST = 600.0  # square points, in print
_MARGIN = 0.2  # of the range of values
_SMALLEST = 0.12  # of the largest


@dataclass(frozen=True, kw_only=True)
class Bubble:
    """A bubble.

    Attributes:
        label: its name in the legend.
        x, y: its place.
        size: what its area stands for.
        look: number of its colour.
    """

    label: str
    x: float
    y: float
    size: float
    look: int


@dataclass(frozen=True, kw_only=True)
class BubbleChart(Chart):
    """Bubbles.

    Attributes:
        x, y: the axes.
        size: what the area stands for, with its unit.
        bubbles: the bubbles.
    """

    x: Axis
    y: Axis
    size: str
    bubbles: tuple[Bubble, ...]

    @property
    def alt(self) -> str:
        parts = (f"{shortened(b.label)}: {self.y.text(b.y)} at {self.x.text(b.x)}, {b.size:.3g}" for b in self.bubbles)
        return f"{self.title}: {self.y.label} against {self.x.label}; area: {self.size}. {'; '.join(parts)}."

    @property
    def areas(self) -> list[float]:
        """Areas from 0 to 1; the smallest bubbles are enlarged, so that their numbers can be read."""
        most = max(bubble.size for bubble in self.bubbles) or 1.0
        return [max(bubble.size / most, _SMALLEST) for bubble in self.bubbles]

    def limits(self, axis: Literal["x", "y"]) -> tuple[float, float]:
        """The ends of an axis, with space for whole bubbles."""
        values = [getattr(bubble, axis) for bubble in self.bubbles]
        begins_at_zero = getattr(self, axis).zero
        low, high = 0.0 if begins_at_zero else min(values), max(values)
        pad = _MARGIN * ((high - low) or 0.1 * abs(high) or 1.0)
        return (low if begins_at_zero else low - pad), high + pad

    @print_style()
    def print_figure(self) -> Any:
        labels = [f"{bubble.label} ({bubble.size:.3g})" for bubble in self.bubbles]
        figure = figure_above_legend([*labels, ""], height=2.5)
        axes = figure.subplots()
        handles = []
        marker = optional("matplotlib.lines").Line2D
        for index in self._large_first():
            bubble, colour = self.bubbles[index], self._colour(self.bubbles[index])
            axes.scatter(bubble.x, bubble.y, s=_LARGEST * self.areas[index], color=colour, alpha=0.55, edgecolor=colour)
            axes.annotate(str(index + 1), (bubble.x, bubble.y), ha="center", va="center", fontsize=7, weight="bold")
        for index, bubble in enumerate(self.bubbles):
            look = {"marker": f"${index + 1}$", "markersize": 5 if index < 9 else 7, "linestyle": ""}
            handles.append(marker([], [], color=self._colour(bubble), **look))
        self.x.on_print(axes, "x")
        self.y.on_print(axes, "y")
        axes.set(xlim=self.limits("x"), ylim=self.limits("y"))
        legend_below(figure, handles, labels, title=f"area: {self.size}", title_fontsize=7)
        return figure

    def plotly_figure(self) -> Any:
        traces = []
        for index in self._large_first():
            bubble, area, number = self.bubbles[index], self.areas[index], index + 1
            marker = {"size": 56 * area**0.5, "color": self._colour(bubble), "opacity": 0.6, "line": {"width": 1}}
            place = {"x": [bubble.x], "y": [bubble.y], "mode": "markers+text", "text": [str(number)]}
            name = for_plotly(shortened(bubble.label))
            hover = f"%{{y}} at %{{x:.4~g}}, {bubble.size:.3g}"
            traces.append(
                {**place, "legendrank": number, "name": f"{number} {name}", "marker": marker, "hovertemplate": hover}
            )
        figure = plotly(traces, x=self.x, y=self.y)
        figure.update_xaxes(range=self.limits("x"))
        figure.update_yaxes(range=self.limits("y"))
        return figure

    def _large_first(self) -> list[int]:
        """Indices of the bubbles, so that small ones are drawn over large ones."""
        return sorted(range(len(self.bubbles)), key=lambda index: -self.areas[index])

    @staticmethod
    def _colour(bubble: Bubble) -> str:
        return COLOURS[bubble.look % len(COLOURS)]

"""Groups of bars: methods alone and in wrappers, a panel for each data set."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Any

from locallearn._figures.style import COLOURS, PAGE, new_figure, print_style
from locallearn.report.charts.chart import Axis, Chart, for_plotly, for_print, legend_columns, pattern, plotly

_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo", "----")
_LONGEST_TICK = 14  # letters; longer names are broken
_PATTERNS = ("", "/", ".", "x", "\\", "+", "|", "-")


@dataclass(frozen=True, kw_only=True)
class Bars:
    """The bars of one colour.

    Attributes:
        label: its name in the legend.
        values: the height for each category, None for no bar.
        errors: half the length of each error bar.
    """

    label: str
    values: tuple[float | None, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A group of axes.

    Attributes:
        title: of the panel.
        categories: below the bars.
        bars: of all colours, the same in every panel.
        reference: height of a dashed line, or None.
    """

    title: str
    categories: tuple[str, ...]
    bars: tuple[Bars, ...]
    reference: float | None = None


@dataclass(frozen=True, kw_only=True)
class BarChart(Chart):
    """Panels of bars.

    Attributes:
        y: the vertical axis.
        panels: the panels, side by side.
        reference: name of the dashed line.
    """

    y: Axis
    panels: tuple[Panel, ...]
    reference: str

    @property
    def alt(self) -> str:
        return f"{self.title}: {'; '.join(map(self._describe, self.panels))}."

    def _describe(self, panel: Panel) -> str:
        parts = [
            f"{category} {bars.label} {self.y.text(value)}"
            for bars in panel.bars
            for category, value in zip(panel.categories, bars.values, strict=True)
            if value is not None
        ]
        line = [] if panel.reference is None else [f"{self.reference} {self.y.text(panel.reference)}"]
        return f"{panel.title}: {', '.join(parts + line)}"

    @property
    def floor(self) -> float:
        """Where the vertical axis begins: at zero, unless all values are far above it."""
        values = [v for panel in self.panels for bars in panel.bars for v in bars.values if v is not None]
        values += [panel.reference for panel in self.panels if panel.reference is not None]
        least, most = min(values), max(values)
        return 0.0 if least < 0.5 else floor((least - 0.5 * (most - least) - 0.005) * 20) / 20

    @print_style()
    def print_figure(self) -> Any:
        count = sum(len(panel.categories) * len(panel.bars) for panel in self.panels)
        labels = [bars.label for bars in self.panels[0].bars]
        size = {"width": PAGE} if count > 12 else {}
        figure = new_figure(height=2.2 + 0.15 * -(-len(labels) // legend_columns(labels)), **size)
        widths = [len(panel.categories) for panel in self.panels]
        grid = figure.subplots(1, len(self.panels), sharey=True, squeeze=False, width_ratios=widths)[0]
        handles: dict[str, Any] = {}
        for axes, panel in zip(grid, self.panels, strict=True):
            self._draw(axes, panel, handles)
            axes.set_title(for_print(panel.title))
        self.y.on_print(grid[0], "y")
        grid[0].set_ylim(bottom=self.floor)
        figure.legend(
            handles.values(), map(for_print, handles), loc="outside lower center", ncols=legend_columns(labels)
        )
        return figure

    def _draw(self, axes: Any, panel: Panel, handles: dict[str, Any]) -> None:
        width = 0.8 / len(panel.bars)
        for number, bars in enumerate(panel.bars):
            shift = (number - (len(panel.bars) - 1) / 2) * width
            places = [place + shift for place, value in enumerate(bars.values) if value is not None]
            values = [value for value in bars.values if value is not None]
            errors = [error for error, value in zip(bars.errors, bars.values, strict=True) if value is not None]
            look = {"color": COLOURS[number % len(COLOURS)], "hatch": _HATCHES[number % len(_HATCHES)]}
            drawn = axes.bar(places, values, width, edgecolor="white", linewidth=0.4, **look)
            if any(errors):
                axes.errorbar(places, values, errors, fmt="none", ecolor="#222222", elinewidth=0.8, capsize=2)
            handles[bars.label] = drawn
        if panel.reference is not None:
            handles[self.reference] = axes.axhline(panel.reference, color="#222222", linestyle="--", linewidth=1)
        names = [for_print(_broken(category, "\n")) for category in panel.categories]
        axes.set_xticks(range(len(names)), names)
        axes.grid(visible=False, axis="x")

    def plotly_figure(self) -> Any:
        several = len(self.panels) > 1
        names = [
            [f"{for_plotly(panel.title)}<br>" * several + _broken(for_plotly(c), "<br>") for c in panel.categories]
            for panel in self.panels
        ]
        places = [name for panel in names for name in panel]
        traces: list[dict[str, Any]] = []
        for number, bars in enumerate(self.panels[0].bars):
            same = [panel.bars[number] for panel in self.panels]
            marker = {"color": COLOURS[number % len(COLOURS)], "pattern": pattern(_PATTERNS[number % len(_PATTERNS)])}
            values, errors = ([v for one in same for v in getattr(one, part)] for part in ("values", "errors"))
            error = {"error_y": {"array": errors}} if any(errors) else {}
            traces.append(
                {"type": "bar", "x": places, "y": values, "name": for_plotly(bars.label), "marker": marker, **error}
            )
        for panel, own in zip(self.panels, names, strict=True):
            if panel.reference is not None:
                line = {"color": COLOURS[6], "dash": "dash", "width": 2}
                heights = [panel.reference] * len(own)
                first = panel is self.panels[0]
                look = {"mode": "lines+markers", "line": line, "legendgroup": "reference", "showlegend": first}
                traces.append({"x": own, "y": heights, "name": for_plotly(self.reference), **look})
        figure = plotly(traces, x=Axis(label=""), y=self.y, barmode="group")
        tops = [v + e for one in self.panels for b in one.bars for v, e in zip(b.values, b.errors, strict=True) if v]
        most = max(tops + [panel.reference or 0.0 for panel in self.panels], default=1.0)
        figure.update_yaxes(range=[self.floor, most + 0.05 * (most - self.floor)])
        return figure


def _broken(name: str, line_break: str) -> str:
    """A long name on several lines, broken where settings begin."""
    if len(name) <= _LONGEST_TICK:
        return name
    return name.replace("(", f"({line_break}", 1).replace(", ", f",{line_break}")

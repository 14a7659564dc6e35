"""A schedule: which module does what, over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from locallearn._figures.style import COLOURS, print_style
from locallearn._utils.quantities import counted
from locallearn.cost import Phase
from locallearn.report.charts.chart import Axis, Chart, figure_above_legend, legend_below, pattern, plotly

_LOOKS = {
    "forward": ("forward", COLOURS[0], "", ""),
    "auxiliary": ("auxiliary network or classifier", COLOURS[4], "....", "."),
    "backward": ("backward", COLOURS[2], "////", "/"),
    "recompute": ("forward again, for the backward pass", COLOURS[3], "xxxx", "x"),
}


@dataclass(frozen=True, kw_only=True)
class ScheduleChart(Chart):
    """Which module does what, over time; the first module is at the bottom.

    Attributes:
        x, y: the axes, of time and of modules.
        phases: what runs, in order.
        modules: number of modules.
    """

    x: Axis
    y: Axis
    phases: tuple[Phase, ...]
    modules: int

    @property
    def alt(self) -> str:
        order = [f"{phase.activity} of module {phase.module}" for phase in self.phases[:6]]
        more = f", and {len(self.phases) - 6} more" if len(self.phases) > 6 else ""
        return f"{self.title}: one step of {counted(self.modules, 'module')}, in this order: {', '.join(order)}{more}."

    @print_style()
    def print_figure(self) -> Any:
        kinds = self._kinds()
        labels = [_LOOKS[kind][0] for kind in kinds]
        figure = figure_above_legend(labels, height=min(1.2 + 0.16 * self.modules, 3.2))
        axes = figure.subplots()
        handles = []
        for kind in kinds:
            _, colour, hatch, _ = _LOOKS[kind]
            look = {"color": colour, "edgecolor": "white", "linewidth": 0.2, "hatch": hatch}
            own = [phase for phase in self.phases if phase.activity == kind]
            places, widths = [phase.module for phase in own], [phase.end - phase.start for phase in own]
            handles.append(axes.barh(places, widths, 0.85, left=[phase.start for phase in own], **look))
        self.x.on_print(axes, "x")
        self.y.on_print(axes, "y")
        axes.set(ylim=(-0.6, self.modules - 0.4))
        axes.grid(visible=False, axis="y")
        legend_below(figure, handles, labels)
        return figure

    def plotly_figure(self) -> Any:
        traces = []
        for kind in self._kinds():
            label, colour, _, shape = _LOOKS[kind]
            own = [phase for phase in self.phases if phase.activity == kind]
            trace = {
                "type": "bar",
                "orientation": "h",
                "name": label,
                "y": [phase.module for phase in own],
                "x": [phase.end - phase.start for phase in own],
                "base": [phase.start for phase in own],
                "marker": {"color": colour, "pattern": pattern(shape), "line": {"width": 0}},
                "hovertemplate": "module %{y}: %{x:.3~g} s",
            }
            traces.append(trace)
        figure = plotly(traces, x=self.x, y=self.y, barmode="overlay", bargap=0.15)
        figure.update_yaxes(range=[-0.6, self.modules - 0.4])
        return figure

    def _kinds(self) -> list[str]:
        return [kind for kind in _LOOKS if any(phase.activity == kind for phase in self.phases)]

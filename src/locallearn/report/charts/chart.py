"""What all charts have in common: texts, axes, legends."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any, Literal

from locallearn._figures.style import new_figure
from locallearn._figures.ticks import log_ticks, whole_ticks
from locallearn._utils.optional_imports import optional

_FEW_TICKS = 8
_FEWEST_TICKS = 2
_LONGEST_LABEL = 46
_COLUMN_LETTERS = 56
"""Letters of a legend's line in a figure of one column; a marker takes the place of eight."""


@dataclass(frozen=True, kw_only=True)
class Chart(ABC):
    """Plain data of a figure, with two drawers: for print, and for the page.

    Attributes:
        name: of its files: letters, digits and hyphens.
        title: a few words.
        caption: what it shows and how to read it.
    """

    name: str
    title: str
    caption: str

    @property
    @abstractmethod
    def alt(self) -> str:
        """What the figure shows, for those who do not see it."""

    @abstractmethod
    def print_figure(self) -> Any:
        """The matplotlib figure, one column wide."""

    @abstractmethod
    def plotly_figure(self) -> Any:
        """The interactive plotly figure."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis.

    Attributes:
        label: the quantity and its unit.
        percent: values are shares, shown in percent.
        log: logarithmic.
        whole: only whole numbers have ticks.
        zero: begins at zero.
    """

    label: str
    percent: bool = False
    log: bool = False
    whole: bool = False
    zero: bool = False

    def on_print(self, axes: Any, which: Literal["x", "y"]) -> None:
        """Set up an axis of matplotlib's."""
        axes.set(**{f"{which}label": for_print(self.label), f"{which}scale": "log" if self.log else "linear"})
        axis = getattr(axes, f"{which}axis")
        if self.percent:
            axis.set_major_formatter(optional("matplotlib.ticker").PercentFormatter(1.0))
        if self.log:
            log_ticks(axis)
        if self.whole:
            whole_ticks(axis)
        if self.zero:
            axes.set(**{f"{which}lim": (0, None)})

    def on_page(self, values: Sequence[Any] = ()) -> dict[str, Any]:
        """The axis as plotly's layout has it, for these values."""
        axis: dict[str, Any] = {"title": {"text": for_plotly(self.label)}, "automargin": True}
        if self.percent:
            axis["tickformat"] = ".3~%"
        if self.log:
            axis |= {"type": "log"} | _log_ticks(values)
        if self.whole:
            few = values and max(values) - min(values) <= _FEW_TICKS
            axis |= {"tickformat": "d"} | ({"dtick": 1} if few else {"nticks": _FEW_TICKS})
        if self.zero:
            axis["rangemode"] = "tozero"
        return axis

    def text(self, value: float) -> str:
        """A value in words."""
        return f"{value:.1%}" if self.percent else f"{value:,.4g}"


def _log_ticks(values: Sequence[float]) -> dict[str, Any]:
    """Ticks at 1, 2 and 5 of each power of ten between some values, of many powers at 1 alone; or plotly's own."""
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    digits = (1, 2, 5) if high - low <= _FEW_TICKS // 2 else (1,)
    ticks = [digit * 10.0**power for power in range(low, high + 1) for digit in digits]
    if sum(min(values) <= tick <= max(values) for tick in ticks) < _FEWEST_TICKS:
        return {}
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def for_print(text: str) -> str:
    """A text as matplotlib shows it unchanged: without formulas, and in the legend too."""
    text = text.replace("\\", "\\\\").replace("$", r"\$") if "$" in text else text
    return f" {text}" if text.startswith("_") else text


def for_plotly(text: str) -> str:
    """A text as plotly shows it unchanged: its tags are letters."""
    return html.escape(text, quote=False)


def shortened(label: str) -> str:
    """A label that fits into a legend: of a long one, the beginning and the end."""
    half = _LONGEST_LABEL // 2 - 1
    return label if len(label) <= _LONGEST_LABEL else f"{label[:half]} … {label[-half:]}"


def legend_columns(labels: Sequence[str]) -> int:
    """How many columns a legend below a figure has."""
    return max(1, min(4, _COLUMN_LETTERS // (max((len(shortened(label)) for label in labels), default=0) + 8)))


def figure_above_legend(labels: Sequence[str], *, height: float = 2.0) -> Any:
    """An empty figure with space for a legend of these labels below the axes."""
    rows = -(-len(labels) // legend_columns(labels)) if len(labels) > 1 else 0
    return new_figure(height=height + 0.15 * rows + 0.05 * bool(rows))


def legend_below(figure: Any, handles: Sequence[Any], labels: Sequence[str], **more: Any) -> None:
    """Draw the legend below the axes, unless there is a single entry."""
    if len(labels) > 1 or more:
        texts = [for_print(shortened(label)) for label in labels]
        columns = legend_columns(labels)
        figure.legend(handles, texts, loc="outside lower center", ncols=columns, handlelength=2.6, **more)


def pattern(shape: str) -> dict[str, Any]:
    """A pattern of plotly's that lies white over the colour of a bar."""
    return {"shape": shape, "fillmode": "overlay", "fgcolor": "#ffffff", "fgopacity": 0.7, "solidity": 0.25}


def plotly(data: Sequence[Any], *, x: Axis, y: Axis, **layout: Any) -> Any:
    """A plotly figure of traces, which are given as dictionaries."""
    go = optional("plotly.graph_objects", extra="analysis")
    values = {which: [v for trace in data for v in trace.get(which, ())] for which in ("x", "y")}
    axes = {"xaxis": x.on_page(values["x"]), "yaxis": y.on_page(values["y"])}
    return go.Figure(data=list(data), layout={"template": "simple_white", "hovermode": "closest", **axes, **layout})

"""Kinds of chart: print and page show the same data."""

from __future__ import annotations

import warnings

import pytest

from locallearn._figures.style import as_bytes
from locallearn.cost import Phase
from locallearn.report import (
    Axis,
    BarChart,
    Bars,
    Bubble,
    BubbleChart,
    Chart,
    HeatMap,
    Line,
    LineChart,
    Panel,
    ScheduleChart,
)

ABOUT = {"name": "a-chart", "title": "A chart", "caption": "What it shows."}
X, Y = Axis(label="x, s"), Axis(label="y", percent=True)
LINES = LineChart(
    **ABOUT,
    x=X,
    y=Y,
    lines=(
        Line(label="one", x=(1, 2, 3), y=(0.1, 0.2, 0.4), low=(0.0, 0.1, 0.3), high=(0.2, 0.3, 0.5)),
        Line(label="two", x=(1, 2), y=(0.3, 0.1), look=1),
    ),
    points=(Line(label="heads of two", x=(2,), y=(0.15,), look=1),),
)
STEPS = LineChart(**ABOUT, x=X, y=Axis(label="MiB", zero=True), lines=LINES.lines[1:], steps=True)
BARS = BarChart(
    **ABOUT,
    y=Y,
    panels=(
        Panel(
            title="digits",
            categories=("dgl", "infopro"),
            bars=(
                Bars(label="alone", values=(0.9, 0.91), errors=(0.01, 0.0)),
                Bars(label="hpff", values=(0.95, None), errors=(0.0, 0.0)),
            ),
            reference=0.97,
        ),
    ),
    reference="backpropagation",
)
BUBBLES = BubbleChart(
    **ABOUT,
    x=Axis(label="MiB", zero=True),
    y=Y,
    size="s per epoch",
    bubbles=(Bubble(label="bp", x=40, y=0.9, size=2.0, look=0), Bubble(label="dgl", x=10, y=0.8, size=0.01, look=1)),
)
HEAT = HeatMap(**ABOUT, x=X, y=X, matrix=((0.0, 0.5, 1.0), (0.25, 0.5, 0.75)), value="linear CKA", limits=(0.0, 1.0))
SCHEDULE = ScheduleChart(
    **ABOUT,
    x=X,
    y=Axis(label="local module", whole=True),
    modules=2,
    phases=(
        Phase(activity="forward", module=0, start=0.0, end=1.0),
        Phase(activity="auxiliary", module=0, start=1.0, end=1.5),
        Phase(activity="backward", module=0, start=1.5, end=3.0),
        Phase(activity="forward", module=1, start=3.0, end=4.0),
    ),
)
CHARTS: dict[str, Chart] = {
    "lines": LINES,
    "steps": STEPS,
    "bars": BARS,
    "bubbles": BUBBLES,
    "heat map": HEAT,
    "schedule": SCHEDULE,
}


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_a_chart_is_drawn_one_column_wide_and_by_plotly(chart):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as a glyph that is missing, or a layout that does not fit
        figure = chart.print_figure()
        assert as_bytes(figure, "png").startswith(b"\x89PNG")
    assert figure.get_size_inches()[0] == pytest.approx(3.4)
    assert len(chart.plotly_figure().data) >= 1
    assert chart.alt.startswith("A chart: ")
    assert chart.alt.endswith(".")


def test_lines_have_the_same_points_in_print_and_on_the_page():
    axes = LINES.print_figure().axes[0]
    printed = [line.get_xydata().tolist() for line in axes.lines]
    named = [trace for trace in LINES.plotly_figure().data if trace.name]
    assert printed == [[list(point) for point in zip(trace.x, trace.y, strict=True)] for trace in named]
    assert printed == [[[1, 0.1], [2, 0.2], [3, 0.4]], [[1, 0.3], [2, 0.1]], [[2, 0.15]]]
    assert len(axes.collections) == 1, "a band of the one line that has several seeds"
    assert [trace.fill for trace in LINES.plotly_figure().data].count("tonexty") == 1


def test_lines_differ_without_colour():
    lines = LineChart(**ABOUT, x=X, y=Y, lines=tuple(Line(label=str(i), x=(1, 2), y=(0, i), look=i) for i in range(20)))
    printed = lines.print_figure().axes[0].lines
    assert len({(line.get_linestyle(), line.get_marker(), str(line._dash_pattern)) for line in printed}) == 20
    drawn = lines.plotly_figure().data
    assert len({(trace.line.color, trace.line.dash, trace.marker.symbol) for trace in drawn}) == 20


def test_bars_have_the_same_heights_and_no_bar_where_there_is_no_run():
    axes = BARS.print_figure().axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.9, 0.91, 0.95]
    assert [tuple(trace.y) for trace in BARS.plotly_figure().data] == [(0.9, 0.91), (0.95, None), (0.97, 0.97)]
    assert len({bar.get_hatch() for bar in axes.patches}) == 2
    assert axes.get_ylim()[0] == BARS.floor == pytest.approx(0.85)


def test_bars_of_low_values_begin_at_zero():
    low = Panel(title="digits", categories=("dgl",), bars=(Bars(label="alone", values=(0.2,), errors=(0.0,)),))
    assert BarChart(**ABOUT, y=Y, panels=(low,), reference="bp").floor == 0


def test_the_area_of_a_bubble_is_its_size_and_small_ones_can_be_read():
    assert BUBBLES.areas == [1.0, 0.12]
    first, second = (trace.marker.size for trace in BUBBLES.plotly_figure().data)
    assert second / first == pytest.approx(0.12**0.5)
    low, high = BUBBLES.print_figure().axes[0].get_xlim()
    assert low == 0
    assert high > 45


def test_a_schedule_has_a_bar_for_each_phase():
    bars = SCHEDULE.print_figure().axes[0].patches
    assert sorted((bar.get_x(), bar.get_width()) for bar in bars) == [(0, 1), (1, 0.5), (1.5, 1.5), (3, 1)]
    forward = SCHEDULE.plotly_figure().data[0]
    assert (tuple(forward.base), tuple(forward.x), tuple(forward.y)) == ((0, 3), (1, 1), (0, 1))
    assert SCHEDULE.alt == (
        "A chart: one step of 2 modules, in this order: forward of module 0, auxiliary of module 0, backward of module"
        " 0, forward of module 1."
    )


@pytest.mark.parametrize("label", ["$x", "a $1$ b", "_hidden", "<b>bold</b>", "a & b", "x" * 200, "é"])
def test_a_label_is_shown_as_it_is(label):
    chart = LineChart(**ABOUT, x=X, y=Y, lines=(Line(label=label, x=(1,), y=(1,)), Line(label="b", x=(1,), y=(2,))))
    figure = chart.print_figure()
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 2
    name = chart.plotly_figure().data[0].name
    assert "<" not in name
    assert len(name) <= 50


def test_a_single_point_of_several_seeds_has_an_error_bar_and_its_epoch_one_tick():
    epoch = Axis(label="epoch", whole=True)
    loss = Axis(label="loss", log=True)
    line = Line(label="a", x=(1,), y=(2.44,), low=(2.4,), high=(2.5,))
    chart = LineChart(**ABOUT, x=epoch, y=loss, lines=(line,))
    axes = chart.print_figure().axes[0]
    assert [list(tick) for tick in _shown(axes.xaxis)] == [[1.0, "1"]]
    (bar,) = [collection for collection in axes.collections if len(collection.get_paths())]
    assert bar.get_paths()[0].vertices.tolist() == [[1, 2.4], [1, 2.5]]
    (trace,) = chart.plotly_figure().data
    assert (trace.error_y.arrayminus[0], trace.error_y.array[0]) == pytest.approx((0.04, 0.06))


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((2.42, 2.44), ["2.42", "2.425", "2.43", "2.435", "2.44"]),
        ((1.1, 2.4), ["1.2", "1.4", "1.6", "1.8", "2", "2.2", "2.4"]),
        ((0.016, 2.4), ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]),
        ((1e-7, 2.4), ["1e-06", "0.0001", "0.01", "1"]),
    ],
)
def test_a_logarithmic_axis_has_plain_numbers(values, ticks):
    line = Line(label="a", x=(1, 2), y=values)
    chart = LineChart(**ABOUT, x=X, y=Axis(label="loss", log=True), lines=(line,))
    assert [text for _, text in _shown(chart.print_figure().axes[0].yaxis)] == ticks


def _shown(axis) -> list[tuple[float, str]]:
    """Place and text of the ticks within an axis."""
    low, high = sorted(axis.get_view_interval())
    axis.figure.draw_without_rendering()
    assert not axis.get_minorticklocs().size
    ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    return [(place, label.get_text()) for place, label in ticks if low <= place <= high]


def test_an_axis_of_whole_numbers_has_no_fractions():
    chart = LineChart(**ABOUT, x=Axis(label="epoch", whole=True), y=Y, lines=(Line(label="a", x=(1, 2), y=(0, 1)),))
    assert chart.plotly_figure().layout.xaxis.dtick == 1
    assert all(tick == int(tick) for tick in chart.print_figure().axes[0].get_xticks())

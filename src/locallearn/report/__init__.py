"""Compares runs: the papers' figures from run folders, and one page of HTML. Imports `analysis` and what is below it.

`read_run` reads a run folder, and `group_runs` puts runs together that differ by seed alone. The functions of `figures`
make charts of groups: plain data with `print_figure()` (matplotlib) and `plotly_figure()`.
"""

from locallearn.report.charts.bars import BarChart as BarChart, Bars as Bars, Panel as Panel
from locallearn.report.charts.bubbles import Bubble as Bubble, BubbleChart as BubbleChart
from locallearn.report.charts.chart import Axis as Axis, Chart as Chart
from locallearn.report.charts.heat_map import HeatMap as HeatMap
from locallearn.report.charts.lines import Line as Line, LineChart as LineChart
from locallearn.report.charts.schedule import ScheduleChart as ScheduleChart
from locallearn.report.curves import write_curves as write_curves
from locallearn.report.figures.cost import (
    accuracy_against_tau as accuracy_against_tau,
    accuracy_memory_time as accuracy_memory_time,
    memory_over_step as memory_over_step,
    savings_against_tau as savings_against_tau,
    schedules as schedules,
)
from locallearn.report.figures.layers import (
    probes as probes,
    similarity_by_layer as similarity_by_layer,
    similarity_maps as similarity_maps,
)
from locallearn.report.figures.training import (
    accuracy_against_epoch as accuracy_against_epoch,
    accuracy_against_time as accuracy_against_time,
    learning_rate as learning_rate,
    module_losses as module_losses,
    output_loss as output_loss,
)
from locallearn.report.figures.wrappers import wrappers as wrappers
from locallearn.report.groups import (
    Group as Group,
    Spread as Spread,
    differing_conditions as differing_conditions,
    group_runs as group_runs,
    setting_text as setting_text,
)
from locallearn.report.numbers import numbers as numbers, rows_of_runs as rows_of_runs
from locallearn.report.page import write_page as write_page
from locallearn.report.runs import (
    Run as Run,
    read_run as read_run,
    refuse_same_folder as refuse_same_folder,
)
from locallearn.report.sections import FIGURES as FIGURES
from locallearn.report.steps import StepRecord as StepRecord, record_steps as record_steps
from locallearn.report.tables import Cell as Cell, Table as Table, summary as summary

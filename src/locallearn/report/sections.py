"""Which figures a comparison has, and in which part of the page each stands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from locallearn.report.charts.chart import Chart
from locallearn.report.figures import cost, layers, training
from locallearn.report.figures.wrappers import wrappers
from locallearn.report.groups import Group
from locallearn.report.steps import StepRecord

FIGURES = {
    "accuracy-epoch": "test accuracy against epoch",
    "accuracy-time": "test accuracy against wall time",
    "output-loss": "training loss of the backbone's output",
    "learning-rate": "learning rate",
    "module-losses": "training loss of each module",
    "accuracy-memory-time": "accuracy against peak memory and time",
    "memory": "live memory over one step",
    "schedule": "which module runs when in one step",
    "wrappers": "methods with and without a wrapper, by data set",
    "tau": "accuracy and saved FLOPs against AugLocal's tau",
    "probes": "linear probes by layer",
    "cka": "similarity of layers between runs",
    "pictures": "pictures of t-SNE and feature maps",
}
"""Names of all figures, to what they show."""

ACROSS_DATA = {"wrappers"}
"""Figures that may have runs on several data sets."""
OF_STEPS = {"module-losses", "accuracy-memory-time", "memory", "schedule", "tau"}
"""Figures that use `StepRecord`."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        charts: charts side by side.
        choices: groups of charts of which one is shown at a time: a heading, to a label and a chart each.
    """

    title: str
    charts: tuple[Chart, ...]
    choices: Mapping[str, Mapping[str, Chart]]

    @property
    def all_charts(self) -> list[Chart]:
        """Every chart of the section."""
        return [*self.charts, *(chart for charts in self.choices.values() for chart in charts.values())]


def sections_of(
    groups: Sequence[Group], steps: Mapping[str, StepRecord], *, only: Collection[str] = tuple(FIGURES)
) -> list[Section]:
    """The parts of the page, with the figures for which these runs have data.

    Args:
        groups: from `group_runs`.
        steps: from `record_steps`.
        only: names of the figures to make.
    """
    spans = {label: step.spans for label, step in steps.items()}
    several = {
        "Training": {
            "accuracy-epoch": lambda: [training.accuracy_against_epoch(groups)],
            "accuracy-time": lambda: [training.accuracy_against_time(groups)],
            "output-loss": lambda: [training.output_loss(groups)],
            "learning-rate": lambda: [training.learning_rate(groups)],
        },
        "Cost of training": {
            "accuracy-memory-time": lambda: [cost.accuracy_memory_time(groups, steps)],
            "memory": lambda: [cost.memory_over_step(groups, steps)],
        },
        "Methods": {
            "wrappers": lambda: [wrappers(groups)],
            "tau": lambda: [cost.accuracy_against_tau(groups, steps), cost.savings_against_tau(groups, steps)],
        },
        "What the layers learned": {
            "probes": lambda: [layers.probes(groups)],
            "cka": lambda: layers.similarity_by_layer(groups).values(),
        },
    }
    one_by_one = {
        "Training": {"module-losses": ("Loss of each module", lambda: training.module_losses(groups, spans))},
        "Cost of training": {"schedule": ("Schedule of one step", lambda: cost.schedules(groups, steps))},
        "What the layers learned": {"cka": ("Similarity of all layers", lambda: layers.similarity_maps(groups))},
    }
    sections = []
    for title, makers in several.items():
        charts = [chart for name, make in makers.items() if name in only for chart in make() if chart is not None]
        choices = {heading: make() for name, (heading, make) in one_by_one.get(title, {}).items() if name in only}
        section = Section(title=title, charts=tuple(charts), choices={k: v for k, v in choices.items() if v})
        if section.all_charts:
            sections.append(section)
    return sections

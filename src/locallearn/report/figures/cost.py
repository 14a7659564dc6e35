"""What training costs: accuracy against memory and time, live bytes, schedules, saved operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from locallearn.report.charts.bubbles import Bubble, BubbleChart
from locallearn.report.charts.chart import Axis
from locallearn.report.charts.lines import Line, LineChart
from locallearn.report.charts.schedule import ScheduleChart
from locallearn.report.figures.training import ACCURACY, with_bands
from locallearn.report.groups import IN_A_GROUP, Group, settings_of
from locallearn.report.steps import StepRecord, tau_of, with_tau
from locallearn.training import rule_text

_MIB = 2**20
_TIME = Axis(label="predicted time, s", zero=True)


def accuracy_memory_time(groups: Sequence[Group], steps: Mapping[str, StepRecord]) -> BubbleChart | None:
    """Accuracy against peak memory, with the time of an epoch as area (MLAAN, Fig. 1); None where memory is unknown.

    Args:
        groups: the groups.
        steps: of each, used for runs that are not finished.
    """
    peaks = {group.label: _peak(group, steps) for group in groups}
    bubbles = [
        Bubble(label=g.label, x=peak / _MIB, y=g.accuracy.mean, size=g.seconds.mean, look=g.look)
        for g in groups
        if (peak := peaks[g.label]) is not None
    ]
    if not bubbles:
        return None
    return BubbleChart(
        name="accuracy-memory-time",
        title="Accuracy, memory and time",
        caption="Test accuracy against the peak of activation memory in a step; the area of a bubble is the time of an"
        " epoch (after MLAAN, Fig. 1). Better is up and to the left, and smaller.",
        x=Axis(label="peak activation memory, MiB", zero=True),
        y=ACCURACY,
        size="s per epoch",
        bubbles=tuple(bubbles),
    )


def memory_over_step(groups: Sequence[Group], steps: Mapping[str, StepRecord]) -> LineChart | None:
    """Live activation memory over one training step: backpropagation is a triangle, local learning a saw."""
    known = [(group, steps[group.label]) for group in groups if group.label in steps]
    if not known:
        return None
    return LineChart(
        name="memory",
        title="Where the bytes are",
        caption="Activation memory alive during one training step, without the optimizer's: backpropagation climbs to"
        " one summit and comes down, local learning makes a tooth for each module. Counted on fake tensors; time is"
        " predicted for one core of a server processor.",
        x=_TIME,
        y=Axis(label="live activations, MiB", zero=True),
        lines=tuple(
            Line(label=g.label, x=step.seconds, y=tuple(round(b / _MIB, 3) for b in step.activations), look=g.look)
            for g, step in known
        ),
        steps=True,
    )


def schedules(groups: Sequence[Group], steps: Mapping[str, StepRecord]) -> dict[str, ScheduleChart]:
    """For each group, which module runs when in one step."""
    return {
        group.label: ScheduleChart(
            name=f"schedule-{group.look}",
            title=f"Schedule: {group.label}",
            caption="Which local module runs when in one training step, module 0 at the bottom. Time is predicted for"
            " one core of a server processor.",
            x=_TIME,
            y=Axis(label="local module", whole=True),
            phases=steps[group.label].phases,
            modules=steps[group.label].modules,
        )
        for group in groups
        if group.label in steps
    }


def accuracy_against_tau(groups: Sequence[Group], steps: Mapping[str, StepRecord]) -> LineChart | None:
    """Test accuracy of runs that differ by tau (AugLocal, Fig. 5); None where there are no two."""
    families = _families(groups)
    if not families:
        return None
    return LineChart(
        name="accuracy-tau",
        title="Accuracy against tau",
        **with_bands(
            "Test accuracy against tau, by which the depth of auxiliary networks falls towards the output (AugLocal,"
            " Fig. 5); 0 is no pyramid.",
            groups,
        ),
        x=Axis(label="tau"),
        y=ACCURACY,
        lines=tuple(
            Line(
                label=label,
                x=tuple(tau for tau, _ in family),
                y=tuple(group.accuracy.mean for _, group in family),
                low=tuple(group.accuracy.mean - group.accuracy.deviation for _, group in family),
                high=tuple(group.accuracy.mean + group.accuracy.deviation for _, group in family),
                look=look,
            )
            for look, (label, family) in enumerate(families.items())
        ),
    )


def savings_against_tau(groups: Sequence[Group], steps: Mapping[str, StepRecord]) -> LineChart | None:
    """FLOPs that the pyramid saves, for runs that differ by tau (AugLocal, Fig. 5); None where there are no two."""
    lines = []
    for look, (label, family) in enumerate(_families(groups).items()):
        saved = [(tau, _saved(steps.get(group.label))) for tau, group in family]
        known = [(tau, share) for tau, share in saved if share is not None]
        if known:
            lines.append(Line(label=label, x=tuple(t for t, _ in known), y=tuple(s for _, s in known), look=look))
    if not lines:
        return None
    return LineChart(
        name="savings-tau",
        title="Saved FLOPs against tau",
        caption="Operations of the forward pass, backbone and auxiliary heads, that a network saves against the same"
        " without a pyramid, tau = 0 (AugLocal, Fig. 5).",
        x=Axis(label="tau"),
        y=Axis(label="saved FLOPs", percent=True),
        lines=tuple(lines),
    )


def _saved(step: StepRecord | None) -> float | None:
    if step is None or not step.macs_without_pyramid:
        return None
    return 1 - step.macs / step.macs_without_pyramid


def _families(groups: Sequence[Group]) -> dict[str, list[tuple[float, Group]]]:
    """Groups that are equal but for tau, by their rule at tau = 0; in order of tau, at least two in each."""
    gathered: dict[str, list[tuple[float, Group]]] = {}
    for group in groups:
        tau = tau_of(group.settings.rule)
        if tau is not None:
            flat = {"rule": rule_text(with_tau(group.settings.rule, 0.0))}
            values = settings_of(group.runs[0]) | flat | dict.fromkeys(IN_A_GROUP)
            gathered.setdefault(repr(values), []).append((tau, group))
    families = [sorted(own, key=lambda entry: entry[0]) for own in gathered.values()]
    several = [own for own in families if len({tau for tau, _ in own}) > 1]
    labels = [_without_tau(own[0][1].settings.rule) for own in several]
    return {
        label if labels.count(label) == 1 else f"{label} ({number})": own
        for number, (label, own) in enumerate(zip(labels, several, strict=True), 1)
    }


def _without_tau(rule: Any) -> str:
    return rule_text(with_tau(rule, 0.5)).replace("()", "")


def _peak(group: Group, steps: Mapping[str, StepRecord]) -> float | None:
    known = group.result("peak_activation_bytes")
    if known is None and group.label in steps:
        return max(steps[group.label].activations)
    return known

"""What one training step of a run looks like: counted on fake tensors, and stored in the run folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch

import locallearn
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning
from locallearn.analysis.cache import Say, answered, silent
from locallearn.cost import Phase, forward_macs, timeline
from locallearn.report.groups import Group
from locallearn.report.runs import Run
from locallearn.rules import Rule
from locallearn.rules.wrapper import base_of, with_base
from locallearn.training import as_yaml, build

_POINTS = 300
"""Intervals of the memory curve, each with its highest and its lowest value."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One training step, without its optimizer step.

    Attributes:
        seconds, activations: live bytes over predicted time, thinned out; the highest points are exact.
        phases: which module does what.
        modules: number of local modules.
        spans: first and last module of each objective.
        macs: multiply-accumulates of one image forward, backbone and task heads (AugLocal, Table 7).
        macs_without_pyramid: the same with tau = 0; None of a rule without tau.
    """

    seconds: tuple[float, ...]
    activations: tuple[int, ...]
    phases: tuple[Phase, ...]
    modules: int
    spans: tuple[tuple[int, int], ...]
    macs: int
    macs_without_pyramid: int | None


def record_steps(groups: Sequence[Group], *, say: Say = silent) -> dict[str, StepRecord]:
    """The step of each group, by its label; those whose network cannot be made are left out.

    Args:
        groups: the groups.
        say: told what is counted, and what is left out and why.
    """
    records: dict[str, StepRecord] = {}
    for number, group in enumerate(groups, 1):
        try:
            records[group.label] = _recorded(group.runs[0], f"{group.label} ({number} of {len(groups)})", say)
        except LocalLearnError as error:
            say(f"{group.runs[0].path}: its training step is left out, since its network cannot be made: {error}")
    return records


def spans_by_group(groups: Sequence[Group]) -> dict[str, tuple[tuple[int, int], ...]]:
    """First and last module of each objective, by the group's label; without groups whose network cannot be made."""
    spans: dict[str, tuple[tuple[int, int], ...]] = {}
    for group in groups:
        run = group.runs[0]
        with suppress(LocalLearnError), warnings.catch_warnings():
            warnings.simplefilter("ignore", LocalLearnWarning)  # shown when the rule was trained
            objectives = build(run.settings, run.card).objectives
            spans[group.label] = tuple((objective.first, objective.last) for objective in objectives)
    return spans


def tau_of(rule: Rule) -> float | None:
    """AugLocal's tau, of a rule or of the rule inside its wrappers; None where there is none."""
    return getattr(base_of(rule), "tau", None)


def with_tau(rule: Rule, tau: float) -> Rule:
    """The rule with another tau, also inside wrappers."""
    return with_base(rule, lambda base: replace(cast("Any", base), tau=tau))


def _recorded(run: Run, name: str, say: Say) -> StepRecord:
    """The record in the run folder, if it is of this run and these versions; else a new one, which is stored."""
    file = run.path / "analysis" / "step.json"
    question = {"locallearn": locallearn.__version__, "torch": torch.__version__, "settings": as_yaml(run.settings)}

    def count() -> dict[str, Any]:
        say(f"counting the training step of {name}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LocalLearnWarning)  # shown when the rule was trained
            return asdict(_count(run))

    return _from_json(answered(file, question, count, say=say))


def _count(run: Run) -> StepRecord:
    settings = run.settings
    net = build(settings, run.card)
    images = min(settings.batch, settings.train_images or settings.batch)
    found = timeline(net, -(-images // settings.accumulate), autocast=settings.autocast)
    seconds, activations = _thinned(found.seconds, found.activations)
    flat = None
    if tau_of(settings.rule) is not None:
        flat = _macs(replace(settings, rule=with_tau(settings.rule, 0.0)), run)
    return StepRecord(
        seconds=seconds,
        activations=activations,
        phases=found.phases,
        modules=found.modules,
        spans=found.spans,
        macs=sum(part.backbone + part.task_heads for part in forward_macs(net)),
        macs_without_pyramid=flat,
    )


def _macs(settings: Any, run: Run) -> int:
    return sum(part.backbone + part.task_heads for part in forward_macs(build(settings, run.card)))


def _thinned(seconds: Sequence[float], values: Sequence[int]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Of each interval of time the highest and the lowest value."""
    chosen: set[int] = {0, len(values) - 1}
    interval = seconds[-1] / _POINTS
    start = 0
    for index in range(1, len(values) + 1):
        if index == len(values) or seconds[index] // interval != seconds[start] // interval:
            own = range(start, index)
            chosen |= {max(own, key=values.__getitem__), min(own, key=values.__getitem__)}
            start = index
    kept = sorted(chosen)
    return tuple(round(seconds[i], 6) for i in kept), tuple(values[i] for i in kept)


def _from_json(known: dict[str, Any]) -> StepRecord:
    phases = tuple(Phase(**phase) for phase in known["phases"])
    spans = tuple((int(first), int(last)) for first, last in known["spans"])
    return StepRecord(
        seconds=tuple(known["seconds"]),
        activations=tuple(known["activations"]),
        phases=phases,
        modules=known["modules"],
        spans=spans,
        macs=known["macs"],
        macs_without_pyramid=known["macs_without_pyramid"],
    )

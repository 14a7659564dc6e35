"""Methods with and without a wrapper, by data set (Fig. 1 of HPFF, MAN and AugLocal)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from locallearn.report.charts.bars import BarChart, Bars, Panel
from locallearn.report.figures.training import ACCURACY
from locallearn.report.groups import Group
from locallearn.rules import BP, Rule
from locallearn.rules.wrapper import Wrapper
from locallearn.training import rule_text

_ALONE = "alone"


def wrappers(groups: Sequence[Group]) -> BarChart | None:
    """Accuracy of each base method alone and in each wrapper, a panel for each data set.

    Args:
        groups: of one data set or of several.

    Returns:
        The chart; None where no run has a wrapper.
    """
    named = [(group.settings.data, *_base_and_wrapper(group.settings.rule), group) for group in groups]
    labels = list(dict.fromkeys([_ALONE, *(wrapper for *_, wrapper, _ in named)]))
    if len(labels) == 1:
        return None
    bases = list(dict.fromkeys(base for _, base, _, _ in named if base is not None))
    found = {(data, base, wrapper): group for data, base, wrapper, group in reversed(named)}
    return BarChart(
        name="wrappers",
        title="Methods with and without a wrapper",
        caption="Test accuracy of each method alone and in a wrapper (HPFF, MAN and AugLocal, Fig. 1). The dashed line"
        " is backpropagation; error bars are one standard deviation over seeds.",
        y=ACCURACY,
        panels=tuple(
            _panel(data, bases, labels, found) for data in dict.fromkeys(group.settings.data for group in groups)
        ),
        reference="backpropagation",
    )


def _panel(data: str, bases: list[str], labels: list[str], found: dict[tuple[str, str | None, str], Group]) -> Panel:
    own = [base for base in bases if any((data, base, label) in found for label in labels)] or bases
    bp = found.get((data, None, _ALONE))
    return Panel(
        title=data,
        categories=tuple(own),
        bars=tuple(_bars(label, [found.get((data, base, label)) for base in own]) for label in labels),
        reference=None if bp is None else bp.accuracy.mean,
    )


def _bars(label: str, groups: Sequence[Group | None]) -> Bars:
    return Bars(
        label=label,
        values=tuple(None if group is None else group.accuracy.mean for group in groups),
        errors=tuple(0.0 if group is None else group.accuracy.deviation for group in groups),
    )


def _base_and_wrapper(rule: Rule) -> tuple[str | None, str]:
    """The rule inside all wrappers, None for backpropagation; and the wrappers, such as `hpff(man)`."""
    if isinstance(rule, BP):
        return None, _ALONE
    if not isinstance(rule, Wrapper):
        return rule_text(rule), _ALONE
    base, around = _base_and_wrapper(rule.rule)
    return base, _name(rule) if around == _ALONE else f"{_name(rule)}({around})"


def _name(wrapper: Wrapper) -> str:
    """A wrapper with its settings, without the rule inside."""
    outer: Any = replace(wrapper, rule=wrapper.base)
    inner = rule_text(wrapper.base)
    return rule_text(outer).replace(f"({inner})", "").replace(f"({inner}, ", "(")

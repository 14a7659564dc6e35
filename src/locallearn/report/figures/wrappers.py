"""Methods with and without a wrapper, by data set (Fig. 1 of HPFF, MAN and AugLocal)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from locallearn.report.charts.bars import BarChart, Bars, Panel
from locallearn.report.figures.training import ACCURACY
from locallearn.report.groups import Group, bp_conditions, bp_conditions_text
from locallearn.rules import BP, Rule
from locallearn.rules.wrapper import Wrapper, base_of
from locallearn.training import rule_text

_ALONE = "alone"


def wrappers(groups: Sequence[Group]) -> BarChart | None:
    """Accuracy of each base method alone and in each wrapper, a panel for each data set, network, epochs, batch ...

    Args:
        groups: of one data set or of several.

    Returns:
        The chart; None where no run has a wrapper.
    """
    named = [(bp_conditions(group), *_base_and_wrapper(group.settings.rule), group) for group in groups]
    labels = list(dict.fromkeys([_ALONE, *(wrapper for *_, wrapper, _ in named)]))
    if len(labels) == 1:
        return None
    bases = list(dict.fromkeys(base for _, base, _, _ in named if base is not None))
    found = {(panel, base, wrapper): group for panel, base, wrapper, group in reversed(named)}
    titles = {bp_conditions(group): bp_conditions_text(group, groups) for group in groups}
    return BarChart(
        name="wrappers",
        title="Methods with and without a wrapper",
        caption="Test accuracy of each method alone and in a wrapper (HPFF, MAN and AugLocal, Fig. 1). The dashed line"
        " is backpropagation; error bars are one standard deviation over seeds.",
        y=ACCURACY,
        panels=tuple(
            _panel(
                title, bases, labels, {(base, label): g for (panel, base, label), g in found.items() if panel == key}
            )
            for key, title in titles.items()
        ),
        reference="backpropagation",
    )


def _panel(title: str, bases: list[str], labels: list[str], found: dict[tuple[str | None, str], Group]) -> Panel:
    own = [base for base in bases if any((base, label) in found for label in labels)] or bases
    bp = found.get((None, _ALONE))
    return Panel(
        title=title,
        categories=tuple(own),
        bars=tuple(_bars(label, [found.get((base, label)) for base in own]) for label in labels),
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
    base = base_of(wrapper)
    outer: Any = replace(wrapper, rule=base)
    inner = rule_text(base)
    return rule_text(outer).replace(f"({inner})", "").replace(f"({inner}, ", "(")

"""Wrappers: rules around a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from locallearn._chain.partition import Partition
from locallearn._objectives.auxiliary import Auxiliary
from locallearn._objectives.objective import Site, Span
from locallearn._utils.errors import LocalLearnError
from locallearn.rules.base import Rule


@dataclass(frozen=True, kw_only=True)
class Wrapper(Rule):
    """A rule that changes one answer of its inner rule and passes on the others, so that wrappers compose.

    Args:
        rule: the inner rule, positional; any that has auxiliary networks.
    """

    does: ClassVar[frozenset[str]] = frozenset()
    """What it changes, in words; two wrappers that change the same refuse each other."""

    rule: Rule = field(kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if not isinstance(self.rule, Rule):
            raise LocalLearnError(
                f"{name}: rule={self.rule!r} is no training rule: give an instance, as in {name}(DGL())."
            )
        inner = self.rule
        while isinstance(inner, Wrapper):
            if both := sorted(self.does & inner.does):
                raise LocalLearnError(
                    f"{name} around {type(inner).__name__}: each {both[0]}, so one of them would undo or repeat the"
                    " other; leave one out."
                )
            inner = inner.rule
        if type(inner).auxiliary is Rule.auxiliary:
            raise LocalLearnError(
                f"{name} changes auxiliary networks, and {type(inner).__name__} has none: put it around a rule that"
                " has some, such as DGL."
            )
        _ = self.inner  # refuses wrong settings of the wrappers inside now, not at `localize`

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.rule})"

    @property
    def inner(self) -> Rule:
        """The rule that answers what the wrapper does not."""
        return self.rule

    def partition(self, partition: Partition) -> Partition:
        return self.inner.partition(partition)

    def spans(self, modules: int) -> list[Span]:
        return self.inner.spans(modules)

    def auxiliary(self, site: Site) -> Auxiliary:
        return self.inner.auxiliary(site)


def base_of(rule: Rule) -> Rule:
    """The rule inside all wrappers; the rule itself where it is none."""
    return base_of(rule.rule) if isinstance(rule, Wrapper) else rule


def with_base(rule: Rule, change: Callable[[Rule], Rule]) -> Rule:
    """The rule in the same wrappers, with what `change` makes of the rule inside them."""
    return replace(rule, rule=with_base(rule.rule, change)) if isinstance(rule, Wrapper) else change(rule)

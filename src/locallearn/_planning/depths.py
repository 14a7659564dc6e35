"""The depth of auxiliary networks, of rules that have such a setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace

from locallearn.rules import Rule, Wrapper


def variants(rule: Rule, depths: Sequence[int]) -> list[Rule]:
    """The rule with each of the depths; the rule alone where it has no such setting."""
    return [_with_depth(rule, depth) for depth in depths] if depth_of(rule) is not None else [rule]


def depth_of(rule: Rule) -> int | None:
    """The setting `depth` of a rule, or of the rule that it wraps; None where there is none."""
    if is_dataclass(rule) and any(field.name == "depth" for field in fields(rule)):
        return getattr(rule, "depth")  # noqa: B009
    return depth_of(rule.rule) if isinstance(rule, Wrapper) else None


def depth_text(rule: Rule) -> str:
    """`, depth 2` to follow the name of a rule; empty where the rule has no depth."""
    depth = depth_of(rule)
    return "" if depth is None else f", depth {depth}"


def _with_depth(rule: Rule, depth: int) -> Rule:
    if is_dataclass(rule) and any(field.name == "depth" for field in fields(rule)):
        return replace(rule, depth=depth)  # pyright: ignore[reportCallIssue]
    assert isinstance(rule, Wrapper)
    return replace(rule, rule=_with_depth(rule.rule, depth))

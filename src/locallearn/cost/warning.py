"""Sentences about what a rule costs: where its auxiliary networks outweigh what it saves, and where BP is better."""

from __future__ import annotations

from locallearn._planning.depths import depth_text
from locallearn._planning.prediction import PeakMemory
from locallearn._utils.quantities import counted, format_bytes
from locallearn.cost.planner import Plan
from locallearn.rules import BP, Rule


def warning_of(rule: Rule, peak: PeakMemory, bp: PeakMemory) -> str | None:
    """What to do where a step needs more memory than backpropagation; None where it needs less.

    Args:
        rule: the rule.
        peak: of its step.
        bp: that of backpropagation.
    """
    if peak.total <= bp.total:
        return None
    takes = f"{rule} takes {peak.total / bp.total:.1f} times the memory of backpropagation"
    of_weights = (peak.total - peak.activations) - (bp.total - bp.activations)
    if of_weights < (peak.total - bp.total) / 2:
        return f"{takes}, and saves no activations: more modules, --memory lean or --rule checkpoint help."
    return (
        f"{takes}: parameters, gradients and optimizer state of its auxiliary networks outweigh the activations it"
        " saves. Fewer modules (--modules 4), lighter auxiliary networks (--rule pooling) or a larger batch help."
    )


def advice_of(plan: Plan) -> str:
    """Whether the plan's best rule is worth it beside backpropagation and checkpointing, which lose no accuracy."""
    best, bp = plan.best, plan.baselines[0]
    own = f"{best.rule}{depth_text(best.rule)}"
    fitting = [one for one in plan.baselines if one.peak <= plan.budget]
    if not fitting:
        return f"neither backpropagation nor checkpointing fits in {format_bytes(plan.budget)}, but {own} does."
    plain = min(fitting, key=lambda one: one.seconds)
    name = "backpropagation" if isinstance(plain.rule, BP) else "checkpointing"
    how = f" in {plain.memory}" * (plain.memory != "fast")
    how += f" with {plain.accumulate} micro-batches" * (plain.accumulate > 1)
    accuracy = "the accuracy of BP"
    if plain.accumulate > 1:
        accuracy += f", but for batch statistics, which are of {counted(plain.micro_batch, 'image')}"
    more = f" {own} takes more memory than BP: give less --memory." if best.peak > bp.peak else ""
    times = [f"{one.seconds / bp.seconds:.2f}" for one in (plain, best)]
    if plain.seconds <= best.seconds:
        return (
            f"{name}{how} is the better choice: it fits too, with {format_bytes(plain.peak)}, in {times[0]} times the"
            f" time of BP, where {own} takes {times[1]}; and it has {accuracy}.{more}"
        )
    return (
        f"{name}{how} fits too, with {format_bytes(plain.peak)} and {accuracy}; {own} takes"
        f" {best.seconds / plain.seconds:.2f} times its time.{more}"
    )

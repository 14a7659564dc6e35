"""A sentence where a rule's auxiliary networks outweigh what it saves."""

from __future__ import annotations

from locallearn.rules import Rule


def warning_of(rule: Rule, total: int, bp: int) -> str | None:
    """What to do where a step needs more memory than backpropagation; None where it needs less.

    Args:
        rule: the rule.
        total: peak bytes of its step in total (`PeakMemory.total`).
        bp: those of backpropagation.
    """
    if total <= bp:
        return None
    return (
        f"{rule} takes {total / bp:.1f} times the memory of backpropagation: parameters, gradients and optimizer state"
        " of its auxiliary networks outweigh the activations it saves. Fewer modules (--modules 4), lighter auxiliary"
        " networks (--rule pooling) or a larger batch help."
    )

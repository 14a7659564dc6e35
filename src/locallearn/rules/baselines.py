"""The baselines: end-to-end backpropagation, plain and with gradient checkpointing."""

from __future__ import annotations

from dataclasses import dataclass

from locallearn._objectives.objective import Span
from locallearn.rules.base import Rule


@dataclass(frozen=True, kw_only=True)
class BP(Rule):
    """Backpropagation: one objective from the first module to the classifier."""

    def spans(self, modules: int) -> list[Span]:
        return [Span(first=0, last=modules - 1)]


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Rule):
    """Backpropagation that keeps only each layer's input and recomputes the layer in the backward pass.

    Gradients are those of `BP`; running statistics move once and random numbers are replayed. In `lean`, what a
    layer computes again is thrifty too, as for every rule.
    Chen et al. 2016, Training deep nets with sublinear memory cost, arXiv:1604.06174.
    """

    def spans(self, modules: int) -> list[Span]:
        return [Span(first=0, last=modules - 1, recompute=True)]

"""Baselines: end-to-end backpropagation, gradient checkpointing, and local heads that only pool."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from locallearn._nn.global_pool import GlobalAverage
from locallearn._objectives.auxiliary import Auxiliary, Head
from locallearn._objectives.objective import Site, Span
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


@dataclass(frozen=True, kw_only=True)
class Pooling(Rule):
    """One cross-entropy loss per module behind average pooling and a linear classifier.

    MLAAN by itself stands on these heads (official code, `resnetMLAAN.py`); InfoPro and AugLocal call them 0c1f.
    """

    def auxiliary(self, site: Site) -> Auxiliary:
        pool = [] if site.is_vector else [GlobalAverage()]
        return Head(nn.Sequential(*pool, nn.Linear(site.shape[0], site.classes)), site.loss)

"""The smallest local head: average pooling and a linear classifier."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from locallearn._nn.global_pool import GlobalAverage
from locallearn._objectives.auxiliary import Auxiliary, Head
from locallearn._objectives.objective import Site
from locallearn.rules.base import Rule


@dataclass(frozen=True, kw_only=True)
class Pooling(Rule):
    """One cross-entropy loss per module behind average pooling and a linear classifier.

    MLAAN by itself stands on these heads (official code, `resnetMLAAN.py`); InfoPro and AugLocal call them 0c1f.
    """

    def auxiliary(self, site: Site) -> Auxiliary:
        pool = [] if site.is_vector else [GlobalAverage()]
        return Head(nn.Sequential(*pool, nn.Linear(site.shape[0], site.classes)), site.loss)

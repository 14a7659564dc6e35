"""MLAAN: Scaling Supervised Local Learning with Multilaminar Leap Augmented Auxiliary Network (Zhang et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass, field

from locallearn._objectives.auxiliary import Auxiliary
from locallearn._objectives.objective import Site
from locallearn.rules.base import Fidelity, Rule
from locallearn.rules.hilo import HiLo
from locallearn.rules.lam import LAM
from locallearn.rules.pooling import Pooling
from locallearn.rules.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class MLM(HiLo):
    """`HiLo` over three modules: the multilaminar local modules of MLAAN (section III-B).

    Source of the official form: official code, `resnetDGLbin.py`, `resnetInfoProbin.py`.
    Unlike HPFF's, its code reconstructs at both levels. In the CIFAR code the last module's own loss is overwritten, so
    that the cascade's alone trains it with weight 1; the ImageNet code has both levels there, and so has this.
    """

    span: int = 3

    def auxiliary(self, site: Site) -> Auxiliary:
        return self.rule.auxiliary(site)


@dataclass(frozen=True, kw_only=True)
class MLAAN(Wrapper):
    """`MLM(LAM(rule))`, leap chains at the cascade level alone: the official code's form, and section III-D's.

    By itself, `MLAAN()`, it stands on pooling heads (Table I, "MLAAN").

    Args:
        span: modules in a cascade, as in `HiLo`. The CIFAR file that the official README names has 2.
        momentum: of the EMA copies, as in `LAM`.
        length: layers of a leap chain where no table says which, as in `LAM`.
        fidelity: of both; their docstrings list where the paper and the official code differ.
    """

    does = MLM.does | LAM.does

    rule: Rule = field(default_factory=Pooling, kw_only=False)
    span: int = 3
    momentum: float = 0.995
    length: int = 4
    fidelity: Fidelity = "official"

    @property
    def inner(self) -> Rule:
        leaping = LAM(self.rule, momentum=self.momentum, length=self.length, cascades_only=True, fidelity=self.fidelity)
        return MLM(leaping, span=self.span, fidelity=self.fidelity)

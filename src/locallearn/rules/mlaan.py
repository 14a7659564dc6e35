"""MLAAN: Multilevel Local Supervised Learning with Augmented Auxiliary Networks (Zhang et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import get_args

from torch import Tensor, nn

from locallearn._nn.ema import refuse_momentum
from locallearn._objectives.auxiliary import Auxiliary, WithFront
from locallearn._objectives.lookahead import counted_by_stage, ema_copy, site_after, trainable_like
from locallearn._objectives.objective import Level, Site
from locallearn._utils.errors import LocalLearnError, refuse_unknown
from locallearn.rules.auglocal import AugLocal
from locallearn.rules.auglocal_ablations import ByStage
from locallearn.rules.base import Fidelity, Rule
from locallearn.rules.baselines import Pooling
from locallearn.rules.hpff import HiLo
from locallearn.rules.mlaan_leaps import general_leap, published_leap
from locallearn.rules.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class LAM(Wrapper):
    r"""Any rule, its auxiliary networks behind a leap chain: copies of some later layers, up to the network's last.

    Each layer of the chain is a trainable copy; the first ones have an EMA copy of the same layer beside them, and the
    sum goes on: z <- copy(z) + ema(z). All start with the layers' own weights. After each step's backward and before
    the optimizer, ema <- momentum * ema + (1 - momentum) * layer.

    Which layers: the published tables for ResNet-32 with 8 and 15 modules and ResNet-110 with 32 and 54
    (`configAuxPlus_new.py`). Else every later layer that changes the shape, so that the copies fit each other, and
    others spread evenly behind them up to the last, `length` in all where there are as many.

    Where the paper (section III-C, Fig. 3, Eq. 7) and the official code (`networks/resnetMLAAN.py`) differ:

    ==================== ============================================ ============================================
    \                    `fidelity="official"`                        `fidelity="paper"`
    ==================== ============================================ ============================================
    EMA copies           of the chain's first layer                   of the first ceil(p (j + 1) / (M - 1)) of p
                                                                      layers: fewer near the input (Fig. 3)
    weights that change  count the stage behind module j, 1, 2, ...   count the module, j
    over the modules
    ==================== ============================================ ============================================

    Eq. 7 moves the EMA copy towards the module's own auxiliary network, which has other shapes; the text and the code
    follow later layers, and so does this. In the CIFAR code only the last module's copy moves, a slip; here all do.

    Args:
        momentum: share of an EMA copy that stays each step, from 0 to 1.
        length: layers of a chain where no table says which.
        cascades_only: whether networks that serve one module go without a chain.
        fidelity: see the table.
    """

    does = frozenset({"puts copies of later layers before auxiliary networks"})

    rule: Rule = field(default_factory=Pooling, kw_only=False)
    momentum: float = 0.995
    length: int = 4
    cascades_only: bool = False
    fidelity: Fidelity = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown("fidelity", self.fidelity, get_args(Fidelity))
        refuse_momentum(type(self).__name__, self.momentum)
        if self.length < 1:
            raise LocalLearnError(f"{type(self).__name__}: length={self.length} must be at least 1.")
        bases = self.base.rules if isinstance(self.base, ByStage) else (self.base,)
        if any(isinstance(base, AugLocal) for base in bases):
            raise LocalLearnError(
                f"{type(self).__name__} leads to the end of the network, where AugLocal finds no later layer to"
                " imitate: put it around DGL, InfoPro, PredSim or Pooling, or use MAN."
            )

    def auxiliary(self, site: Site) -> Auxiliary:
        if site.layer + 1 == len(site.chain):
            raise LocalLearnError(
                f"LAM: no layer follows {site.chain.names[site.layer]!r} to leap to; another wrapper already leads to"
                " the end of the network. Use one of the two, or choose modules so that the last one has more layers."
            )
        counted = counted_by_stage(site) if self.fidelity == "official" else site
        if self.cascades_only and site.level is not Level.CASCADE:
            return self.rule.auxiliary(counted)
        layers = self.leap(site)
        return WithFront(_Leap(self, site, layers), self.rule.auxiliary(site_after(counted, layers[-1])))

    def leap(self, site: Site) -> list[int]:
        """Indices of the layers that a site's chain copies."""
        found = published_leap(site.chain, site.layer, site.module, site.modules)
        return general_leap(site.chain, site.layer, self.length) if found is None else found

    def ema_copies(self, site: Site, layers: int) -> int:
        """How many of a chain's layers have an EMA copy."""
        if self.fidelity == "official":
            return 1
        return max(1, min(layers, ceil(layers * (site.module + 1) / (site.modules - 1))))


class _Leap(nn.Module):
    """The chain of copies."""

    def __init__(self, rule: LAM, site: Site, layers: list[int]) -> None:
        super().__init__()
        self.copies = nn.ModuleList(trainable_like(site, layer) for layer in layers)
        followed = layers[: rule.ema_copies(site, len(layers))]
        self.emas = nn.ModuleList(ema_copy(site, layer, rule.momentum, fresh=False) for layer in followed)

    def forward(self, z: Tensor) -> Tensor:
        for index, layer in enumerate(self.copies):
            # A view for each: gradients of z are summed copy by copy, with equal bits when a copy is recomputed.
            z = layer(z.view_as(z)) + self.emas[index](z.view_as(z)) if index < len(self.emas) else layer(z)
        return z


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

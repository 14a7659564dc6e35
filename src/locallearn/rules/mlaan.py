r"""MLAAN: Multilevel Local Supervised Learning with Augmented Auxiliary Networks (Zhang et al., 2024).

MLM, multilaminar local modules (section III-B, Eq. 3-5), is HiLo with k = 3: module j is trained by its own loss and by
those of the k cascades that contain it, with i = j - k + 1:

.. math::
    \theta_j \leftarrow \theta_j - \eta_d \nabla_{\theta_j} \mathcal{L}(\hat y_j, y)
    - \sum_{n=i}^{i+k-1} \eta_c \nabla_{\theta_j} \mathcal{L}(\hat y_n, y). \tag{5}

LAM, leap augmented modules (section III-C), puts two copies of each of p later layers m between module and head,
:math:`\varphi', \varphi'' = \mathrm{deepcopy}(m)`, one trained with the head (Eq. 6) and one moved by EMA (Eq. 7):

.. math::
    (\gamma_j, \varphi') &\leftarrow (\gamma_j, \varphi') - \eta_d \nabla \mathcal{L}(\hat y_j, y) \tag{6}

    \varphi'' &\leftarrow r\, \varphi'' + (1 - r)\, m \tag{7}

    z_l &= \varphi'_l(z_{l-1}) + \varphi''_l(z_{l-1}), \quad l = 1, \dots, p, \qquad \hat y_j = g_{\gamma_j}(z_p).

As printed, Eq. 7 and 9 have the module's own auxiliary network in place of m. Its shapes do not fit; the text and the
official code follow later layers, and so does `LAM`. MLAAN is MLM with LAM in the cascades (section III-D, Eq. 8-9).
Eq. 10-11 subtract parameters of the copies from a module's; neither the official code nor this file does.

====================== ==================================================================
symbol                 here
====================== ==================================================================
k                      `MLM.span`
:math:`\eta_d, \eta_c` `MLM.independent` and `MLM.cascade`, weights of the losses
r                      `LAM.momentum`
p, m                   `LAM.leap`: the later layers
:math:`\varphi'`       `_LeapChain.copies`
:math:`\varphi''`      `_LeapChain.emas`, for the first `LAM.ema_copies` layers
====================== ==================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil

from torch import Tensor, nn

from locallearn._nn.ema import refuse_momentum
from locallearn._objectives.auxiliary import Auxiliary, WithFront
from locallearn._objectives.lookahead import (
    counted_by_stage,
    ema_copy,
    fresh_like,
    site_after,
    trainable_ema_copy,
    trainable_like,
)
from locallearn._objectives.objective import Level, Site
from locallearn._utils.errors import LocalLearnError
from locallearn.rules.auglocal import AugLocal
from locallearn.rules.auglocal_ablations import ByStage
from locallearn.rules.base import Fidelity, Rule
from locallearn.rules.baselines import Pooling
from locallearn.rules.hpff import HiLo
from locallearn.rules.infopro import InfoPro, with_default_head
from locallearn.rules.man import next_layer
from locallearn.rules.mlaan_leaps import general_leap, published_leap
from locallearn.rules.wrapper import Wrapper, base_of


@dataclass(frozen=True, kw_only=True)
class LAM(Wrapper):
    r"""Any rule, its auxiliary networks after a leap chain: copies of some later layers, up to the network's last.

    Each layer of the chain is a trainable copy; the first ones have an EMA copy of the same layer beside them, and the
    sum goes on. All start with the layers' own weights. EMA copies move after each step's backward pass, before the
    optimizer's.

    Which layers: the published tables (`mlaan_leaps.py`). Else every later layer that changes the shape, so that the
    copies fit each other, and others spread evenly after them up to the last, `length` in all where there are as many.

    Where the paper (section III-C, Fig. 3, Eq. 7) and the official code (`networks/resnetMLAAN.py`) differ:

    ==================== ============================================ ============================================
    \                    `fidelity="official"`                        `fidelity="paper"`
    ==================== ============================================ ============================================
    EMA copies           of the chain's first layer                   of the first ceil(p (j + 1) / (M - 1)) of p
                                                                      layers: fewer near the input (Fig. 3)
    weights that change  count the stage of module j's last layer,    count the module, j, of K in the split's
    over the modules     1, 2, 3, of K modules                        name
    around InfoPro       EMA copies are trained too                   EMA copies move alone
                         (`resnetInfoProbin.py`)
    ==================== ============================================ ============================================

    In the CIFAR code only the last module's EMA copy moves, a slip; here all do. In the code for ImageNet copies start
    with first weights of their own: `fresh=True`.

    Args:
        rule: the inner rule, positional; `Pooling` by default.
        momentum: r, share of an EMA copy that stays each step, from 0 to 1.
        length: p, layers of a chain where no table says which.
        cascades_only: whether only networks of cascades have a chain.
        fresh: whether all copies start newly initialised, instead of with the layers' weights.
        fidelity: see the table.
    """

    does = frozenset({"puts copies of later layers before auxiliary networks"})

    rule: Rule = field(default_factory=Pooling, kw_only=False)
    momentum: float = 0.995
    length: int = 4
    cascades_only: bool = False
    fresh: bool = False
    fidelity: Fidelity = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_momentum(type(self).__name__, self.momentum)
        if self.length < 1:
            raise LocalLearnError(f"{type(self).__name__}: length={self.length} must be at least 1.")
        base = base_of(self)
        bases = base.rules if isinstance(base, ByStage) else (base,)
        if any(isinstance(base, AugLocal) for base in bases):
            raise LocalLearnError(
                f"{type(self).__name__} copies layers up to the network's last, where AugLocal finds no later layer to"
                " imitate: put it around DGL, InfoPro, PredSim or Pooling, or use MAN."
            )

    def auxiliary(self, site: Site) -> Auxiliary:
        next_layer(self, site)  # refuses the end of the network
        counted = counted_by_stage(among_modules(site), site.layer) if self.fidelity == "official" else site
        if self.cascades_only and site.level is not Level.CASCADE:
            return self.rule.auxiliary(counted)
        layers = self.leap(site)
        after = site_after(counted, layers[-1])
        chain = _LeapChain(self, site, layers)
        return WithFront(chain, self.rule.auxiliary(after), prefix=site.prefix, passes=after.prefix)

    def leap(self, site: Site) -> list[int]:
        """Indices of the p later layers that a site's chain copies."""
        published = published_leap(site.chain, site.layer, site.module, site.modules)
        return general_leap(site.chain, site.layer, self.length) if published is None else published

    @property
    def trains_ema_copies(self) -> bool:
        """Whether the optimizer trains EMA copies too."""
        return self.fidelity == "official" and isinstance(base_of(self), InfoPro)

    def ema_copies(self, site: Site, p: int) -> int:
        """How many of a chain's p layers have an EMA copy."""
        if self.fidelity == "official":
            return 1
        return max(1, min(p, ceil(p * (site.module + 1) / (site.modules - 1))))


class _LeapChain(nn.Module):
    """The copies of later layers, one after the other; the first ones with an EMA copy beside them."""

    def __init__(self, rule: LAM, site: Site, layers: list[int]) -> None:
        super().__init__()
        trainable = fresh_like if rule.fresh else trainable_like
        ema = trainable_ema_copy if rule.trains_ema_copies else ema_copy
        steps = list(zip([site, *(site_after(site, layer) for layer in layers)], layers, strict=False))
        self.copies = nn.ModuleList(trainable(before, layer) for before, layer in steps)
        with_ema = steps[: rule.ema_copies(site, len(layers))]
        self.emas = nn.ModuleList(ema(before, layer, rule.momentum, fresh=rule.fresh) for before, layer in with_ema)

    def forward(self, z: Tensor) -> Tensor:
        for l, copied in enumerate(self.copies):
            # A view for each: gradients of z are summed copy by copy, with equal bits when a copy is recomputed.
            z = copied(z.view_as(z)) + self.emas[l](z.view_as(z)) if l < len(self.emas) else copied(z)
        return z


@dataclass(frozen=True, kw_only=True)
class MLM(HiLo):
    """`HiLo` over three modules: the multilaminar local modules of MLAAN (section III-B).

    Unlike HPFF's, the official code (`resnetDGLbin.py`, `resnetInfoProbin.py`) reconstructs at both levels. Its CIFAR
    form overwrites the last module's own loss, so that the cascade's alone trains it with weight 1; its ImageNet form
    has both levels there, and so has this. Around InfoPro, a module's own head is 1c2f with the contrastive loss,
    whatever the setting (default arguments), and K is the number of modules.
    """

    span: int = 3

    def auxiliary(self, site: Site) -> Auxiliary:
        if self.fidelity == "paper":
            return self.rule.auxiliary(site)
        rule = with_default_head(self.rule) if site.level is Level.INDEPENDENT else self.rule
        return rule.auxiliary(among_modules(site))


def among_modules(site: Site) -> Site:
    """The site with the number of modules as K of schedules, whatever the split's name."""
    return replace(site, published_modules=site.modules)


@dataclass(frozen=True, kw_only=True)
class MLAAN(Wrapper):
    """`MLM(LAM(rule))`, leap chains at the cascade level alone: the official code's form, and section III-D's.

    `MLAAN()` has pooling heads (Table I, "MLAAN"); the published runs on CIFAR-10 have `span=2`, and those around
    InfoPro the inner rule `InfoPro.published("mlaan")`. ImageNet's is `MLAAN(ImageNetPooling(), fresh=True)`.

    Args:
        rule: the inner rule, positional; `Pooling` by default.
        span: modules in a cascade, as in `HiLo`. The CIFAR file that the official README names has 2.
        momentum: of the EMA copies, as in `LAM`.
        length: layers of a leap chain where no table says which, as in `LAM`.
        fresh: whether copies start newly initialised, as in `LAM`.
        fidelity: of both; their docstrings list where the paper and the official code differ.
    """

    does = MLM.does | LAM.does

    rule: Rule = field(default_factory=Pooling, kw_only=False)
    span: int = 3
    momentum: float = 0.995
    length: int = 4
    fresh: bool = False
    fidelity: Fidelity = "official"

    @property
    def inner(self) -> Rule:
        leaping = LAM(
            self.rule,
            momentum=self.momentum,
            length=self.length,
            cascades_only=True,
            fresh=self.fresh,
            fidelity=self.fidelity,
        )
        return MLM(leaping, span=self.span, fidelity=self.fidelity)

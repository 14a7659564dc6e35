"""MAN: Momentum Auxiliary Network for Supervised Local Learning (Su et al., ECCV 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from locallearn._nn.ema import refuse_momentum
from locallearn._objectives.auxiliary import Auxiliary, WithFront
from locallearn._objectives.lookahead import counted_by_stage, ema_copy, fresh_like, site_after, trainable_ema_copy
from locallearn._objectives.objective import Site
from locallearn._utils.errors import LocalLearnError, refuse_unknown
from locallearn.rules.base import Fidelity
from locallearn.rules.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class MAN(Wrapper):
    r"""Any rule, its auxiliary networks behind a momentum copy of the next module's first layer and a learnable branch.

    With n the layer behind module j, the inner rule's auxiliary network takes y = bias(x) + ema(x), two layers like n.
    The EMA copy gets no gradient: after each step's backward and before the optimizer it moves towards n,
    ema <- momentum * ema + (1 - momentum) * n. Where n changes the shape, so do both, and heads have n's width.

    Where the paper (Eq. 6-7) and the official code (`networks/resnetInfoPro_MAN.py`) differ:

    ======================= ========================================== =========================================
    \                       `fidelity="official"`                      `fidelity="paper"`
    ======================= ========================================== =========================================
    what moves by EMA       a copy that is not trained                 a copy that is trained too (Eq. 6 and 7)
    learnable bias          a trainable layer like n, beside           a number for each channel, added, from 0
    weights that change     count the stage of n, 1, 2, 3 ...          count the module, j
    over the modules
    ======================= ========================================== =========================================

    Both begin with first weights of their own, not with n's. The official code's default momentum of 1 never moves;
    the published runs have 0.995. Where its stages would give a negative weight (fewer than five modules), modules are
    counted.

    Args:
        momentum: share of the copy that stays each step, from 0 to 1; 0 takes the next layer's parameters without EMA
            (Table 5), those of the step before.
        ema: whether there is the EMA copy.
        bias: whether there is the learnable branch.
        learn_scale: weigh the branches s and 2 - s, with one learnable s per module that starts at 1 (MAN++).
        fidelity: see the table.
    """

    does = frozenset({"puts a copy of the next layer before auxiliary networks"})

    momentum: float = 0.995
    ema: bool = True
    bias: bool = True
    learn_scale: bool = False
    fidelity: Fidelity = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown("fidelity", self.fidelity, get_args(Fidelity))
        refuse_momentum("MAN", self.momentum)
        if not (self.ema or self.bias):
            raise LocalLearnError("MAN: without ema and without bias nothing is left; use the inner rule alone.")
        if self.learn_scale and not (self.ema and self.bias and self.fidelity == "official"):
            raise LocalLearnError("MAN: learn_scale weighs the two layers of the official form, so it needs both.")

    def auxiliary(self, site: Site) -> Auxiliary:
        after = site.layer + 1
        if after == len(site.chain):
            raise LocalLearnError(
                f"MAN: no layer follows {site.chain.names[site.layer]!r} to copy; another wrapper already leads to the"
                " end of the network. Use one of the two."
            )
        if self.fidelity == "paper":
            front = _Paper(self, site, after)
        else:
            site = counted_by_stage(site)
            front = _Official(self, site, after)
        return WithFront(front, self.rule.auxiliary(site_after(site, after)))


class _Official(nn.Module):
    """bias(x) + ema(x)."""

    def __init__(self, rule: MAN, site: Site, layer: int) -> None:
        super().__init__()
        self.bias = fresh_like(site, layer) if rule.bias else None
        self.ema = ema_copy(site, layer, rule.momentum, fresh=True) if rule.ema else None
        self.scale = nn.Parameter(torch.ones(())) if rule.learn_scale else None

    def forward(self, x: Tensor) -> Tensor:
        if self.ema is None or self.bias is None:
            branch = self.bias or self.ema
            assert branch is not None
            return branch(x)
        # A view for each: gradients of x are summed branch by branch, with equal bits when a branch is recomputed.
        bias, ema = self.bias(x.view_as(x)), self.ema(x.view_as(x))
        return bias + ema if self.scale is None else self.scale * bias + (2 - self.scale) * ema


class _Paper(nn.Module):
    """gamma(x) + b."""

    def __init__(self, rule: MAN, site: Site, layer: int) -> None:
        super().__init__()
        self.gamma = trainable_ema_copy(site, layer, rule.momentum) if rule.ema else fresh_like(site, layer)
        channels = site.chain.width(layer)
        ones = () if site.chain.vectors[layer] else (1, 1)
        self.bias = nn.Parameter(torch.zeros(channels, *ones)) if rule.bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.gamma(x)
        return y if self.bias is None else y + self.bias

r"""MAN: Momentum Auxiliary Network for Supervised Local Learning (Su et al., ECCV 2024).

The auxiliary network of module j begins with a copy :math:`\gamma_j` of the first layer of module j+1 and a learnable
bias :math:`b_j`. Both are trained by the module's loss (Eq. 6), and the copy follows the layer besides (Eq. 7):

.. math::
    (\gamma_j, b_j) &\leftarrow (\gamma_j, b_j) - \eta_a \nabla_{(\gamma_j, b_j)} \mathcal{L}(\hat y_j, y) \tag{6}

    \gamma_j &\leftarrow \mathrm{EMA}(\gamma_j, \theta_{j+1}) = m\, \gamma_j + (1 - m)\, \theta_{j+1} \tag{7}

The inner rule's head :math:`g_j` takes what the two make of the module's output, in the paper (b a vector) and in the
official code (b a layer):

.. math::
    \hat y_j = g_j\bigl(\gamma_j(x_{j+1}) + b_j\bigr) \qquad\text{and}\qquad
    \hat y_j = g_j\bigl(\gamma_j(x_{j+1}) + b_j(x_{j+1})\bigr).

====================== ==================================================================
symbol                 here
====================== ==================================================================
m                      `MAN.momentum`
:math:`\gamma_j`       `ema` in the official form, `gamma` in the paper's
:math:`b_j`            `bias`, a layer in the official form, a vector in the paper's
Eq. 7                  `EmaCopy` in `_nn/ema.py`, after the backward pass and before the
                       optimizer's step
====================== ==================================================================

MAN++, the successor of MAN, weighs copy and bias, both layers like the one after module j, by a learnable number
:math:`s_j` for each module:

.. math::
    \hat y_j = g_j\bigl(s_j\, b_j(x_{j+1}) + (2 - s_j)\, \gamma_j(x_{j+1})\bigr), \qquad s_j = 1 \text{ at first.}

====================== ==================================================================
symbol                 here
====================== ==================================================================
:math:`s_j`            `scale`, trained like the other parameters
:math:`\gamma_j, b_j`  `ema` and `bias`, as in the official form of MAN
====================== ==================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from locallearn._nn.ema import refuse_momentum
from locallearn._objectives.auxiliary import Auxiliary, WithFront
from locallearn._objectives.lookahead import counted_by_stage, ema_copy, fresh_like, site_after, trainable_ema_copy
from locallearn._objectives.objective import Site
from locallearn._utils.errors import LocalLearnError
from locallearn.rules.base import Fidelity
from locallearn.rules.infopro import with_default_head
from locallearn.rules.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class MAN(Wrapper):
    r"""Any rule, its auxiliary networks after an EMA copy of the next module's first layer and a learnable bias.

    Let n be the layer after module j. Where n changes the shape, so do the copy and the bias, and the inner rule's
    heads have n's width.

    Where the paper (Eq. 6-7) and the official code (`networks/resnetInfoPro_MAN.py`) differ:

    ======================= ========================================== =========================================
    \                       `fidelity="official"`                      `fidelity="paper"`
    ======================= ========================================== =========================================
    copy                    follows n (Eq. 7), and is not trained      is trained too (Eq. 6 and 7)
    learnable bias          a trainable layer like n, beside the copy  a number for each channel, from 0
    weights that change     count the stage of n, 1, 2, 3 ...          count the module, j
    over the modules
    ======================= ========================================== =========================================

    Copy and bias start with first weights of their own, not with n's. The official code's default momentum of 1 never
    moves; the published runs have 0.995. Where its stages would give a negative weight (fewer than five modules),
    modules are counted.

    Args:
        rule: the inner rule, positional.
        momentum: m, share of the copy that stays each step, from 0 to 1; 0 takes the next layer's parameters without
            EMA (Table 5), those of the step before.
        ema: whether there is the EMA copy.
        bias: whether there is the learnable bias.
        fidelity: see the table.
    """

    does = frozenset({"puts a copy of the next layer before auxiliary networks"})

    momentum: float = 0.995
    ema: bool = True
    bias: bool = True
    fidelity: Fidelity = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_momentum("MAN", self.momentum)
        if not (self.ema or self.bias):
            raise LocalLearnError("MAN: ema=False and bias=False leave nothing of it: use the inner rule alone.")

    def auxiliary(self, site: Site) -> Auxiliary:
        following = next_layer(self, site)
        if self.fidelity == "paper":
            front = _VectorAsBias(self, site, following)
        else:
            site = counted_by_stage(site, following)
            front = LayerAsBias(site, following, self.momentum, ema=self.ema, bias=self.bias)
        after = site_after(site, following)
        return WithFront(front, self.rule.auxiliary(after), prefix=site.prefix, passes=after.prefix)


def next_layer(rule: Wrapper, site: Site) -> int:
    """Index of the layer after a site's; refuses a site at the end of the network."""
    if site.layer + 1 == len(site.chain):
        raise LocalLearnError(
            f"{type(rule).__name__}: no layer follows {site.chain.names[site.layer]!r} to copy: another wrapper already"
            " copies layers up to the end of the network. Use one of the two, or choose modules so that the last one"
            " has more layers."
        )
    return site.layer + 1


class LayerAsBias(nn.Module):
    """The official code's form: an EMA copy of a layer, and a trainable layer of its structure, added."""

    def __init__(self, site: Site, layer: int, momentum: float, *, ema: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.bias = fresh_like(site, layer) if bias else None
        self.ema = ema_copy(site, layer, momentum, fresh=True) if ema else None

    def forward(self, x: Tensor) -> Tensor:
        if self.ema is None or self.bias is None:
            branch = self.bias or self.ema
            assert branch is not None
            return branch(x)
        # A view for each: gradients of x are summed branch by branch, with equal bits when a branch is recomputed.
        return self.sum_of(self.bias(x.view_as(x)), self.ema(x.view_as(x)))

    def sum_of(self, bias: Tensor, ema: Tensor) -> Tensor:
        """What goes on to the head, of the outputs of the two."""
        return bias + ema


class _VectorAsBias(nn.Module):
    """The paper's form: a trained copy of a layer that follows it besides, and a number for each channel, added."""

    def __init__(self, rule: MAN, site: Site, layer: int) -> None:
        super().__init__()
        self.gamma = trainable_ema_copy(site, layer, rule.momentum, fresh=True) if rule.ema else fresh_like(site, layer)
        positions = () if site.chain.vectors[layer] else (1, 1)
        self.bias = nn.Parameter(torch.zeros(site.chain.width(layer), *positions)) if rule.bias else None

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.gamma(x)
        return gamma if self.bias is None else gamma + self.bias


@dataclass(frozen=True, kw_only=True)
class MANPP(Wrapper):
    """MAN++: any rule after MAN's copy and bias, weighed by a learnable scale, as in the official code.

    Differences from `MAN`:

    ======================= =====================================================================================
    scale                   one number s per module: s * bias + (2 - s) * copy
    first layer alone       is a module of its own in the splits `man++-K` for CIFAR. Its weights are the first of
                            the schedule (K does not count it), and InfoPro's head there is 1c2f with the
                            contrastive loss, whatever the setting: the code's default arguments
    ======================= =====================================================================================

    The published runs have the inner rules `InfoPro.published("hpff")` and `DGL.manpp()`, on ImageNet
    `ImageNetInfoPro()`, and the splits `man++-K`. The official code's default momentum of 1 never moves; its README
    has 0.995.

    Args:
        rule: the inner rule, positional.
        momentum: share of the EMA copy that stays each step, from 0 to 1.
    """

    does = MAN.does

    momentum: float = 0.995

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_momentum("MANPP", self.momentum)

    def auxiliary(self, site: Site) -> Auxiliary:
        following = next_layer(self, site)
        front = ScaledLayerAsBias(site, following, self.momentum)
        rule, after = self.rule, site_after(counted_by_stage(site, following), following)
        if site.layer == 0:
            rule, after = with_default_head(rule), replace(after, schedule_index=0)
        return WithFront(front, rule.auxiliary(after), prefix=site.prefix, passes=after.prefix)


class ScaledLayerAsBias(LayerAsBias):
    """MAN's two layers, weighed by s and 2 - s."""

    def __init__(self, site: Site, layer: int, momentum: float) -> None:
        super().__init__(site, layer, momentum)
        self.scale = nn.Parameter(torch.ones(()))

    def sum_of(self, bias: Tensor, ema: Tensor) -> Tensor:
        return self.scale * bias + (2 - self.scale) * ema

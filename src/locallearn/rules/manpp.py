r"""MAN++: the successor of MAN, with a learnable scale between the EMA copy and the learnable bias.

With the copy :math:`\gamma_j` and the bias :math:`b_j` of `man.py`, both layers like the one after module j, a number
:math:`s_j` for each module weighs them:

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
from locallearn._objectives.lookahead import counted_by_stage, site_after
from locallearn._objectives.objective import Site
from locallearn.rules.infopro import with_default_head
from locallearn.rules.man import MAN, LayerAsBias, next_layer
from locallearn.rules.wrapper import Wrapper


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
        if site.layer == 0:
            first = replace(site_after(site, following), schedule_index=0)
            return WithFront(front, with_default_head(self.rule).auxiliary(first))
        return WithFront(front, self.rule.auxiliary(site_after(counted_by_stage(site, following), following)))


class ScaledLayerAsBias(LayerAsBias):
    """MAN's two layers, weighed by s and 2 - s."""

    def __init__(self, site: Site, layer: int, momentum: float) -> None:
        super().__init__(site, layer, momentum)
        self.scale = nn.Parameter(torch.ones(()))

    def sum_of(self, bias: Tensor, ema: Tensor) -> Tensor:
        return self.scale * bias + (2 - self.scale) * ema

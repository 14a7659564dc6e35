r"""InfoPro's reconstruction loss beside any rule's own (AugLocal, section A.9 and Table 13).

.. math::
    \mathcal{L}_i = \lambda_{1,i}\, \mathcal{R}(d_i(h), x) + \lambda_{2,i}\, \mathcal{L}_i^{\mathrm{rule}}(h, y),

with :math:`\mathcal{R}`, :math:`d_i` and the schedule of the weights as in `infopro.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from locallearn._objectives.auxiliary import Auxiliary, WeightedSum
from locallearn._objectives.decoders import Decoder
from locallearn._objectives.objective import Site
from locallearn._utils.errors import LocalLearnError
from locallearn.rules.infopro import InfoPro, Weights, interpolate, reconstruct, refuse_weights
from locallearn.rules.wrapper import Wrapper, base_of


@dataclass(frozen=True, kw_only=True)
class InfoProLoss(Wrapper):
    """Any rule, with InfoPro's reconstruction beside its own loss: lambda1 * reconstruction + lambda2 * the rule's.

    `InfoProLoss(AugLocal(depth=4))` is AugLocal with the InfoPro loss: AugLocal's auxiliary networks, and a decoder
    beside each. The weights are not published.

    Args:
        rule: the inner rule, positional; any but InfoPro.
        lambda1, lambda2: weights in the first and in the last module.
    """

    does = frozenset({"adds a reconstruction loss"})

    lambda1: Weights = (5.0, 0.2)
    lambda2: Weights = (1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(base_of(self), InfoPro):
            raise LocalLearnError(
                "InfoProLoss adds a reconstruction loss, and InfoPro has one: set its lambda1 instead."
            )
        for name, weights in (("lambda1", self.lambda1), ("lambda2", self.lambda2)):
            refuse_weights(f"InfoProLoss: {name}", weights)

    def auxiliary(self, site: Site) -> Auxiliary:
        decoder = Decoder(site.shape, site.image_shape[0])
        return WeightedSum(
            [
                (interpolate(self.lambda1, site), reconstruct(decoder, site)),
                (interpolate(self.lambda2, site), self.rule.auxiliary(site)),
            ]
        )

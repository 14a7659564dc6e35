r"""Auxiliary networks on spatially reduced features: DGL's "SR" as a wrapper of any rule.

DGL (Belilovsky et al., ICML 2020) averages features over neighbouring positions before its auxiliary network (MLP-SR,
"spatial reduction"), so that the network costs little next to the module. `Reduced` does so for the auxiliary network
:math:`g_j` of any rule, with maps of at most G x G positions:

.. math::
    \hat y_j = g_j\bigl(\mathrm{pool}_{G}\, x_{j+1}\bigr), \qquad
    \mathrm{pool}_{G} : \mathbb{R}^{C \times H \times W} \to \mathbb{R}^{C \times \min(H, G) \times \min(W, G)}.

No paper has this wrapper, and no code of it is published; DGL's own head has a pooling of its own besides.

====================== ==================================================================
symbol                 here
====================== ==================================================================
G                      `Reduced.grid`
pool                   `PoolToAtMost`: adaptive average pooling
====================== ==================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from locallearn._chain.layout import divided, joined
from locallearn._objectives.auxiliary import Auxiliary, WithFront
from locallearn._objectives.objective import Site
from locallearn._utils.errors import LocalLearnError
from locallearn.rules.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class Reduced(Wrapper):
    """Any rule, its auxiliary networks on features that are averaged to at most `grid` x `grid` positions.

    The inner rule builds its networks for the reduced maps, layers that it copies included. Smaller maps, and vectors,
    stay as they are, and so do prefix tokens (e.g. the class token). Not published, so there is no `fidelity`.

    Args:
        rule: the inner rule, positional.
        grid: G, height and width at most.
    """

    does = frozenset({"reduces the features of auxiliary networks"})

    grid: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid < 1:
            raise LocalLearnError(f"Reduced: grid={self.grid} must be at least 1.")

    def auxiliary(self, site: Site) -> Auxiliary:
        if site.is_vector or max(site.shape[1:]) <= self.grid:
            return self.rule.auxiliary(site)
        channels, height, width = site.shape
        size = min(height, self.grid), min(width, self.grid)
        auxiliary = self.rule.auxiliary(replace(site, reduced=(channels, *size)))
        return WithFront(
            PoolToAtMost(size, auxiliary.prefix), auxiliary, prefix=auxiliary.prefix, passes=auxiliary.prefix
        )


class PoolToAtMost(nn.Module):
    """Average pooling of maps, which may carry prefix tokens, to at most a height and width.

    Args:
        size: the height and width.
        prefix: tokens that the maps carry; they are handed on.
    """

    def __init__(self, size: tuple[int, int], prefix: int = 0) -> None:
        super().__init__()
        self.size, self.prefix = size, prefix

    def forward(self, x: Tensor) -> Tensor:
        if not self.prefix:
            return self._pooled(x)
        tokens, maps = divided(x, self.prefix)
        return joined(tokens, self._pooled(maps))

    def _pooled(self, maps: Tensor) -> Tensor:
        height, width = (min(side, most) for side, most in zip(maps.shape[2:], self.size, strict=True))
        return F.adaptive_avg_pool2d(maps, (height, width))

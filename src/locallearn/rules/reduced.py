r"""Auxiliary networks on reduced features: DGL's "SR" as a wrapper of any rule, and narrower features.

DGL (Belilovsky et al., ICML 2020) averages features over neighbouring positions before its auxiliary network (MLP-SR,
"spatial reduction"), so that the network costs little next to the module. `Reduced` does so for the auxiliary network
:math:`g_j` of any rule, with maps of at most G x G positions, and if wanted projects features of more than D channels:

.. math::
    \hat y_j = g_j\bigl(W_j\, \mathrm{pool}_{G}\, x_{j+1}\bigr), \qquad
    \mathrm{pool}_{G} : \mathbb{R}^{C \times H \times W} \to \mathbb{R}^{C \times \min(H, G) \times \min(W, G)}, \qquad
    W_j \in \mathbb{R}^{D \times C}.

No paper has this wrapper, and no code of it is published; DGL's own head has a pooling of its own besides.

====================== ==================================================================
symbol                 here
====================== ==================================================================
G                      `Reduced.grid`
pool                   `PoolToAtMost`: adaptive average pooling
D                      `Reduced.channels`; without it, and where C is not larger, there is no W
:math:`W_j`            a convolution 1x1, trained by the module's loss like :math:`g_j`
====================== ==================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from locallearn._chain.layout import divided, joined
from locallearn._nn.init import he_normal_
from locallearn._objectives.auxiliary import Auxiliary, WithFront
from locallearn._objectives.objective import Site
from locallearn._utils.errors import LocalLearnError
from locallearn.rules.man import MAN
from locallearn.rules.mlaan import LAM
from locallearn.rules.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class Reduced(Wrapper):
    """Any rule, its auxiliary networks on features that are averaged to at most `grid` x `grid` positions.

    The inner rule builds its networks for the reduced maps, layers that it copies included. Smaller maps, and vectors,
    stay as they are, and so do prefix tokens (e.g. the class token). Not published, so there is no `fidelity`.

    Args:
        rule: the inner rule, positional.
        grid: G, height and width at most.
        channels: D, width at most; wider features go through a convolution 1x1. None leaves the width. Not for rules
            that copy layers (MAN, LAM, MLAAN), since copies take the width of the originals.
    """

    does = frozenset({"reduces the features of auxiliary networks"})

    grid: int = 8
    channels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("grid", "channels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LocalLearnError(f"Reduced: {name}={value} must be at least 1.")
        inner = self.rule
        while self.channels is not None and isinstance(inner, Wrapper):
            if inner.does & (MAN.does | LAM.does):
                raise LocalLearnError(
                    f"Reduced: channels={self.channels} does not fit around {type(inner).__name__}, whose copies of"
                    f" layers take their width: put {type(inner).__name__} around Reduced, or leave channels out."
                )
            inner = inner.rule

    def auxiliary(self, site: Site) -> Auxiliary:
        if site.is_vector:
            return self.rule.auxiliary(site)
        channels, height, width = site.shape
        reduced = min(channels, self.channels or channels), min(height, self.grid), min(width, self.grid)
        if reduced == site.shape:
            return self.rule.auxiliary(site)
        auxiliary = self.rule.auxiliary(replace(site, reduced=reduced))
        prefix = auxiliary.prefix
        parts: list[nn.Module] = []
        if reduced[1:] != (height, width):
            parts.append(PoolToAtMost(reduced[1:], prefix))
        if reduced[0] < channels:
            parts.append(nn.Conv2d(channels, reduced[0], 1, bias=False))  # cells that carry no token stay zero
        front = nn.Sequential(*parts)
        he_normal_(front)
        return WithFront(front, auxiliary, prefix=prefix, passes=prefix)


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

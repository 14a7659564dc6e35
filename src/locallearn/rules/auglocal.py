r"""AugLocal: Scaling Supervised Local Learning with Augmented Auxiliary Networks (Ma et al., ICLR 2024).

A network has layers :math:`f^1 \dots f^L` and a classifier :math:`g`. The auxiliary network of layer :math:`\ell` has
new layers like some of the later ones, and is trained by the cross entropy of its logits (section 3.2):

.. math::
    G^\ell = g \circ f^{\beta_{d^\ell-1}} \circ \dots \circ f^{\beta_1}(h^\ell), \qquad
    \beta_i = \ell + \left\lfloor \frac{L-\ell}{d^\ell-1}\, i \right\rceil, \quad i = 1, \dots, d^\ell - 1.

Its depth falls linearly towards the network's end (section 3.3, Eq. 3):

.. math::
    d^\ell = \min\!\left(\left\lfloor \Bigl(1 - \tau\frac{\ell-1}{L-2}\Bigr) d + \tau\frac{\ell-1}{L-2}\, d_{\min}
    \right\rceil,\; L - \ell + 1\right), \quad \ell = 1, \dots, L - 1,

where :math:`\lfloor\cdot\rceil` is the nearest integer. The first new layer takes the width of :math:`h^\ell`; a new
layer has stride 2 where the width at least doubles, else 1 (section 3.2).

====================== ==================================================================
symbol                 here
====================== ==================================================================
:math:`d`              `AugLocal.depth`, the classifier counted
:math:`\tau`           `AugLocal.tau`
:math:`d_{\min}`       2: one new layer and the classifier
:math:`d^\ell`         `depth`, the nearest integer; `select` applies the bound
:math:`\beta_i`        `select`, as indices from 0
strides                `strides_for`
:math:`\ell, L`        `site.layer + 1` and `len(site.chain)`
====================== ==================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import floor, log2

from torch import nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.layout import Carry
from locallearn._chain.partition import Partition
from locallearn._nn.global_pool import GlobalAverage
from locallearn._nn.init import he_normal_
from locallearn._nn.layer_types import POOLS
from locallearn._nn.narrow import narrow_width
from locallearn._objectives.auxiliary import Auxiliary, Head
from locallearn._objectives.objective import Site
from locallearn._utils.errors import LocalLearnError
from locallearn.rules.base import Fidelity, Rule

D_MIN = 2
"""Smallest depth of Eq. 3: one new layer and the classifier."""


def half_up(x: float) -> int:
    """The nearest integer, ties up; Python's `round` takes the even one."""
    return floor(x + 0.5)


def depth(l: int, L: int, *, d: int, d_min: int, tau: float, nint: Callable[[float], int]) -> int:
    """Depth of the auxiliary network of layer l of L, counted from 1 (Eq. 3); `select` applies the bound L - l + 1.

    The last layer, after which only wrappers such as MAN put a network, has the depth of the one before, d_min.
    """
    ratio = tau * (min(l, L - 1) - 1) / (L - 2) if L > 2 else 0.0
    return nint((1 - ratio) * d + ratio * d_min)


def select(l: int, L: int, d: int, fidelity: Fidelity) -> list[int]:
    """Uniform selection (section 3.2): beta_1 ... beta_(d-1) for layer l of L, as indices from 0."""
    d = min(d, L - l + 1)  # the bound of Eq. 3
    if fidelity == "official":
        return [round(l - 1 + (L - l) / (d - 1) * i) for i in range(1, d)]
    return [l - 1 + half_up((L - l) / (d - 1) * i) for i in range(1, d)]


def strides_for(widths: list[int], *, carry: bool) -> list[int]:
    """Stride of each new layer: 2 where the width at least doubles; with `carry`, x4 gives the next layer a 2 as well.

    Args:
        widths: of the features, then of each new layer.
        carry: whether doublings beyond the first are passed on to the next layers.
    """
    strides, pending = [], 0
    for before, after in pairwise(widths):
        pending = (pending if carry else 0) + max(0, floor(log2(max(1, after // before))))
        strides.append(2 if pending else 1)
        pending -= bool(pending)
    return strides


@dataclass(frozen=True, kw_only=True)
class AugLocal(Rule):
    r"""One cross-entropy loss per module; its auxiliary network has new layers like some of the backbone's later ones.

    Where the paper and the official code (`train.py`, `networks/resnet.py`, `networks/auxiliary_nets.py`) differ:

    ====================== =============================================== =========================================
    \                      `fidelity="official"`                           `fidelity="paper"`
    ====================== =============================================== =========================================
    modules                those that more than d - 1 layers follow;       all
                           the later ones join the last
    Eq. 3 counts           the M modules that remain: M in place of L      the L layers
    Eq. 3 rounds           d - 1, the layers before the classifier;        d, ties up
                           ties to even
    selection rounds       the sum, indices from 0; ties to even           the distance, ties up
    x4 growth of width     stride 2 here and stride 2 at the next layer    stride 2 here
    heads of one layer     BatchNorm before the classifier                 no BatchNorm
    ====================== =============================================== =========================================

    Args:
        depth: d, layers with weights of the deepest auxiliary network, its classifier counted; at least 2.
        tau: how far the depth falls, from 0 (not at all) to 1 (to 2).
        fidelity: see the table.
        narrow: width of the new layers, times that of the layers they are like; the paper has 1. Below 1 these layers
            must be convolutional.
    """

    depth: int = 4
    tau: float = 0.5
    fidelity: Fidelity = "official"
    narrow: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 2:
            raise LocalLearnError(f"AugLocal: depth={self.depth}, but it counts the classifier, so it is at least 2.")
        if not 0 <= self.tau <= 1:
            raise LocalLearnError(f"AugLocal: tau={self.tau} is outside [0, 1].")
        if not 0 < self.narrow <= 1:
            raise LocalLearnError(f"AugLocal: narrow={self.narrow} must be above 0 and at most 1.")

    @classmethod
    def imagenet(cls, depth: int = 5) -> AugLocal:
        """`ImageNetAugLocal`: depth 5 for ResNet-34, 4 for ResNet-101, 3 for VGG13."""
        return ImageNetAugLocal(depth=depth)

    def partition(self, partition: Partition) -> Partition:
        if self.fidelity == "paper":
            return partition
        last = partition.ends[-1]
        with_auxiliary = sum(last - end > self.depth - 1 for end in partition.ends)
        return partition.join_last(with_auxiliary + 1)

    def auxiliary(self, site: Site) -> Auxiliary:
        layers, width = self.layers(site)
        pool = [] if site.is_vector else [GlobalAverage()]
        network = nn.Sequential(*layers, *pool, *self.classifier(site, width))
        he_normal_(network)
        return Head(network, site.loss, prefix=site.prefix)

    def hidden(self, site: Site) -> int:
        """Layers before the classifier that Eq. 3 gives a site's auxiliary network, d^l - 1."""
        d, tau = self.depth, self.tau
        if self.fidelity == "official":
            return depth(site.module + 1, site.modules, d=d - 1, d_min=D_MIN - 1, tau=tau, nint=round)
        return depth(site.layer + 1, len(site.chain), d=d, d_min=D_MIN, tau=tau, nint=half_up) - 1

    def selected(self, site: Site) -> list[int]:
        """Indices of the layers that a site's auxiliary network copies in structure."""
        return select(site.layer + 1, len(site.chain), self.hidden(site) + 1, self.fidelity)

    def strides(self, site: Site, selected: list[int]) -> list[int]:
        """Stride of each of the new layers."""
        widths = [base_width(site.chain, i) for i in (site.layer, *selected)]
        return strides_for(widths, carry=self.fidelity == "official")

    def layers(self, site: Site) -> tuple[list[nn.Module], int]:
        """The new layers of a site's auxiliary network, which return maps, and the width of the last."""
        selected = self.selected(site)
        return like_layers(site, selected, self.strides(site, selected), self.narrow)

    def classifier(self, site: Site, width: int) -> list[nn.Module]:
        """The layers after pooling, for features of a width."""
        norm = self.fidelity == "official" and self.hidden(site) == 1
        return [*([nn.BatchNorm1d(width)] if norm else []), nn.Linear(width, site.classes)]


@dataclass(frozen=True, kw_only=True)
class ImageNetAugLocal(AugLocal):
    """AugLocal as its official code trains on ImageNet: no module joins the last, and no pyramid.

    Depths are d, or as many layers as follow; heads have no BatchNorm. The text has tau = 0.5 for every data set
    (4.1), as `AugLocal` has, and does not mention the heads' BatchNorm. Here `fidelity` changes only how ties of the
    selection round, and whether strides carry over. In bottleneck blocks strides go by the width before the expansion.

    VGG (chains of single convolutions of stride 1, with max pooling between some) has its own auxiliary networks:
    convolutions of stride 1, max pooling 2x2 before each where the width changes, average pooling, twice
    Linear(512) - BN - ReLU, and a linear classifier, all with PyTorch's first weights. The paper (section A.2) has the
    512 units, and no BatchNorm.

    Source: official code, `exp_imagenet/networks/resnet.py`, `vgg.py`, `auxiliary_nets.py`.

    Args:
        depth: d, of an auxiliary network; 5 for ResNet-34, 4 for ResNet-101, 3 for VGG13. VGG's head counts as one.
        tau: must be 0, as there is no pyramid.
        fidelity: see above.
        narrow: as in `AugLocal`; the 512 units of VGG's heads stay.
    """

    depth: int = 5
    tau: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau:
            raise LocalLearnError(
                f"ImageNetAugLocal: tau={self.tau}, but it has no pyramid: leave tau out, or use AugLocal."
            )

    def partition(self, partition: Partition) -> Partition:
        return partition

    def hidden(self, site: Site) -> int:
        return min(self.depth - 1, len(site.chain) - 1 - site.layer)

    def auxiliary(self, site: Site) -> Auxiliary:
        return self._vgg(site) if is_vgg(site.chain) else super().auxiliary(site)

    def classifier(self, site: Site, width: int) -> list[nn.Module]:
        return [nn.Linear(width, site.classes)]

    def _vgg(self, site: Site) -> Auxiliary:
        selected = self.selected(site)
        width = site.chain.width(site.layer)
        parts: list[nn.Module] = []
        for i, (before, after) in zip(selected, pairwise([width, *map(site.chain.width, selected)]), strict=True):
            parts += [nn.MaxPool2d(2, ceil_mode=True)] if before != after else []
            parts.append(site.chain.new_like(i, in_channels=width, stride=1, narrow=self.narrow))
            width = narrow_width(after, self.narrow)
        parts.append(GlobalAverage())
        for _ in range(2):
            parts += [nn.Linear(width, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True)]
            width = 512
        return Head(nn.Sequential(*parts, nn.Linear(width, site.classes)), site.loss)


def base_width(chain: TracedChain, layer: int) -> int:
    """Output channels of a layer, before the expansion where it is a bottleneck block (attribute `expansion`)."""
    expansion = getattr(chain.layers[layer], "expansion", 1)
    width = chain.width(layer)
    return width // expansion if isinstance(expansion, int) and expansion > 0 and width % expansion == 0 else width


def like_layers(
    site: Site, selected: list[int], strides: list[int], narrow: float = 1.0
) -> tuple[list[nn.Module], int]:
    """New layers like the selected ones, to be run after a site, and the width of the last.

    They hand on prefix tokens; what the last one returns is a map. `narrow` is the factor of their widths.
    """
    chain, width, prefix = site.chain, site.shape[0], site.prefix
    parts: list[nn.Module] = []
    for i, stride in zip(selected, strides, strict=True):
        if chain.vectors[i] != site.is_vector:
            raise LocalLearnError(
                f"AugLocal cannot put a layer like {chain.names[i]!r} after {chain.names[site.layer]!r}: one works on"
                " maps and the other on vectors. Choose modules that end before or after the change."
            )
        try:
            parts.append(chain.new_like(i, in_channels=width, stride=stride, prefix=prefix, narrow=narrow))
        except LocalLearnError as error:
            raise LocalLearnError(f"AugLocal, layer {chain.names[i]!r}: {error}") from error
        width, prefix = narrow_width(chain.width(i), narrow), chain.layouts[i].prefix
    return [*parts, *([Carry(prefix)] if prefix else [])], width


def is_vgg(chain: TracedChain) -> bool:
    """Whether each layer has exactly one convolution, of stride 1, and some layers have pooling."""
    strides = [[part.stride for part in layer.modules() if isinstance(part, nn.Conv2d)] for layer in chain.layers]
    return (
        all(isinstance(layer, nn.Sequential) for layer in chain.layers)
        and all(stride == [(1, 1)] for stride in strides)
        and any(isinstance(part, POOLS) for layer in chain.layers for part in layer.modules())
    )

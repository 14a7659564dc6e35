"""AugLocal: Scaling Supervised Local Learning with Augmented Auxiliary Networks (Ma et al., ICLR 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import floor, log2
from typing import get_args

from torch import nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.partition import Partition
from locallearn._nn.global_pool import GlobalAverage
from locallearn._nn.init import he_normal_
from locallearn._nn.layer_types import POOLS
from locallearn._objectives.auxiliary import Auxiliary, Head
from locallearn._objectives.objective import Site
from locallearn._utils.errors import LocalLearnError, refuse_unknown
from locallearn.rules.base import Fidelity, Rule


@dataclass(frozen=True, kw_only=True)
class AugLocal(Rule):
    r"""One loss per module behind new layers like some of the backbone's later ones, fewer of them towards its end.

    A module that ends with layer l (from 0) of L gets k_l new layers, like the backbone's layers spread evenly over
    l + 1 ... L - 1 (uniform selection, section 3.2), then average pooling and a linear classifier. The number of layers
    falls from depth - 1 towards 1 (pyramidal depth, Eq. 3). A new layer has stride 2 where the width grows.

    Where the paper and the official code (`train.py`, `networks/resnet.py`, `networks/auxiliary_nets.py`) differ:

    ====================== =============================================== =========================================
    \                      `fidelity="official"`                           `fidelity="paper"`
    ====================== =============================================== =========================================
    modules                those that more than depth - 1 layers follow;   all
                           the later ones join the last
    Eq. 3 divides by       M - 2, of the M modules that remain             L - 2
    ties round             to even                                         up
    x4 growth of width     stride 2 here and stride 2 at the next layer    stride 2 here
    heads of one layer     BatchNorm before the classifier                 no BatchNorm
    ====================== =============================================== =========================================

    Args:
        depth: layers with weights of the deepest auxiliary network, its classifier counted; at least 2.
        tau: how much the depth falls; 0 keeps it.
        fidelity: see the table.
    """

    depth: int = 4
    tau: float = 0.5
    fidelity: Fidelity = "official"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown("fidelity", self.fidelity, get_args(Fidelity))
        if self.depth < 2:
            raise LocalLearnError(f"AugLocal: depth={self.depth}, but it counts the classifier, so it is at least 2.")
        if not 0 <= self.tau <= 1:
            raise LocalLearnError(f"AugLocal: tau={self.tau} is outside [0, 1].")

    @classmethod
    def imagenet(cls, depth: int = 5) -> AugLocal:
        """The form of the ImageNet experiments, `ImageNetAugLocal`: depth 5 for ResNet-34, 4 for ResNet-101."""
        return ImageNetAugLocal(depth=depth)

    def partition(self, partition: Partition) -> Partition:
        if self.fidelity == "paper":
            return partition
        last = partition.ends[-1]
        kept = sum(last - end > self.depth - 1 for end in partition.ends)
        return partition.join_last(kept + 1)

    def auxiliary(self, site: Site) -> Auxiliary:
        parts, width = self.layers(site)
        if not site.is_vector:
            parts = [*parts, GlobalAverage()]
        network = nn.Sequential(*parts, *self.classifier(site, width))
        he_normal_(network)
        return Head(network, site.loss)

    def classifier(self, site: Site, width: int) -> list[nn.Module]:
        """What stands behind the pooled features of a width."""
        norm = self.fidelity == "official" and self.hidden(site) == 1
        return [*([nn.BatchNorm1d(width)] if norm else []), nn.Linear(width, site.classes)]

    def layers(self, site: Site) -> tuple[list[nn.Module], int]:
        """The new layers of a site's auxiliary network, and the width that they end with."""
        selected = self.selected(site)
        return like_layers(site, selected, self.strides(site, selected))

    def selected(self, site: Site) -> list[int]:
        """Indices of the layers that a site's auxiliary network imitates."""
        return select(site.layer, len(site.chain), self.hidden(site), self.fidelity)

    def strides(self, site: Site, selected: list[int]) -> list[int]:
        """Stride of each of the new layers."""
        widths = [base_width(site.chain, i) for i in (site.layer, *selected)]
        return strides_for(widths, carry=self.fidelity == "official")

    def hidden(self, site: Site) -> int:
        """Pyramidal depth (Eq. 3): number of layers, k_l, of a site's auxiliary network before its classifier."""
        k, tau = self.depth - 1, self.tau
        if self.fidelity == "official":
            steps = site.modules - 2
            ratio = site.module * tau / steps if steps > 0 else 0.0
            return max(1, round(k * (1 - ratio) + ratio))
        steps = len(site.chain) - 2
        ratio = site.layer * tau / steps if steps > 0 else 0.0
        return max(1, floor((1 - ratio) * (k + 1) + ratio * 2 + 0.5) - 1)


@dataclass(frozen=True, kw_only=True)
class ImageNetAugLocal(AugLocal):
    """AugLocal as for ImageNet: every module stays, all auxiliary networks are equally deep, no BatchNorm in the head.

    Layers are selected as for CIFAR, depth - 1 of them or as many as follow. In bottleneck blocks the stride goes by
    the width before the expansion. After layers of VGG, convolutions that max pooling separates, the new layers are
    convolutions of stride 1, with max pooling 2x2 before each where the width changes, and the head is that of a VGG
    with 512 hidden units: twice Linear - BN - ReLU, and a linear classifier (official code: `networks/resnet.py`,
    `networks/vgg.py`, `networks/auxiliary_nets.py`). VGG's auxiliary networks start as PyTorch starts them. The paper
    neither says that depths are equal nor has BatchNorm in VGG's heads; `fidelity` changes only how ties round.

    Args:
        depth: layers with weights of an auxiliary network, its classifier counted as one; 5 for ResNet-34, 4 for
            ResNet-101, 3 for VGG13.
        tau: must be 0, for there is no pyramid.
        fidelity: how ties of the selection round.
    """

    depth: int = 5
    tau: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau:
            raise LocalLearnError(f"ImageNetAugLocal: tau={self.tau}, but it has no pyramid: use AugLocal for that.")

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
        widths = [base_width(site.chain, i) for i in (site.layer, *selected)]
        parts: list[nn.Module] = []
        for i, (before, after) in zip(selected, pairwise(widths), strict=True):
            parts += [nn.MaxPool2d(2, ceil_mode=True)] if before != after else []
            parts.append(site.chain.new_like(i, in_channels=before, stride=1))
        parts.append(GlobalAverage())
        width = widths[-1]
        for _ in range(2):
            parts += [nn.Linear(width, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True)]
            width = 512
        return Head(nn.Sequential(*parts, nn.Linear(width, site.classes)), site.loss)


def base_width(chain: TracedChain, layer: int) -> int:
    """Output channels of a layer; of a bottleneck block, which says how it expands its width, those before that."""
    expansion = getattr(chain.layers[layer], "expansion", 1)
    width = chain.width(layer)
    return width // expansion if isinstance(expansion, int) and expansion > 0 and width % expansion == 0 else width


def like_layers(site: Site, selected: list[int], strides: list[int]) -> tuple[list[nn.Module], int]:
    """New layers like the selected ones, to be run behind a site, and the width that they end with."""
    chain, width, parts = site.chain, site.shape[0], []
    for i, stride in zip(selected, strides, strict=True):
        if chain.vectors[i] != site.is_vector:
            raise LocalLearnError(
                f"AugLocal cannot put a layer like {chain.names[i]!r} behind {chain.names[site.layer]!r}: one works"
                " on maps and the other on vectors. Choose modules that end before or after the change."
            )
        try:
            parts.append(chain.new_like(i, in_channels=width, stride=stride))
        except LocalLearnError as error:
            raise LocalLearnError(f"AugLocal, layer {chain.names[i]!r}: {error}") from None
        width = chain.width(i)
    return parts, width


def select(layer: int, layers: int, hidden: int, fidelity: Fidelity) -> list[int]:
    """Uniform selection (section 3.2): indices of the layers that the auxiliary network behind `layer` imitates."""
    later = layers - 1 - layer
    if hidden >= later:
        return list(range(layer + 1, layers))
    if fidelity == "official":
        return [round(layer + later / hidden * i) for i in range(1, hidden + 1)]
    return [layer + floor(later / hidden * i + 0.5) for i in range(1, hidden + 1)]


def strides_for(widths: list[int], *, carry: bool) -> list[int]:
    """Stride of each new layer: 2 where the width at least doubles; further doublings carry over to the next layers."""
    strides, pending = [], 0
    for before, after in pairwise(widths):
        pending = (pending if carry else 0) + max(0, floor(log2(max(1, after // before))))
        strides.append(2 if pending else 1)
        pending -= bool(pending)
    return strides


def is_vgg(chain: TracedChain) -> bool:
    """Whether each layer is one convolution of stride 1 with what goes with it, and pooling is between some."""
    parts = [list(layer.modules()) for layer in chain.layers]
    convolutions = [[part for part in layer if isinstance(part, nn.Conv2d)] for layer in parts]
    return all(
        isinstance(layer, nn.Sequential) and len(found) == 1 and found[0].stride == (1, 1)
        for layer, found in zip(chain.layers, convolutions, strict=True)
    ) and any(isinstance(part, POOLS) for layer in parts for part in layer)

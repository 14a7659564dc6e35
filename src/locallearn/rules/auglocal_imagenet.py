"""AugLocal as for ImageNet (Ma et al., ICLR 2024; official code, `exp_imagenet/`)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.partition import Partition
from locallearn._nn.global_pool import GlobalAverage
from locallearn._nn.layer_types import POOLS
from locallearn._objectives.auxiliary import Auxiliary, Head
from locallearn._objectives.objective import Site
from locallearn._utils.errors import LocalLearnError
from locallearn.rules.auglocal import AugLocal, base_width


@dataclass(frozen=True, kw_only=True)
class ImageNetAugLocal(AugLocal):
    """AugLocal as for ImageNet: every module stays, all auxiliary networks are equally deep, no BatchNorm in the head.

    Layers are selected as for CIFAR, depth - 1 of them or as many as follow. In bottleneck blocks the stride goes by
    the width before the expansion. Behind layers of VGG, convolutions that max pooling separates, the new layers are
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


def is_vgg(chain: TracedChain) -> bool:
    """Whether each layer is one convolution of stride 1 with what goes with it, and pooling is between some."""
    parts = [list(layer.modules()) for layer in chain.layers]
    convolutions = [[part for part in layer if isinstance(part, nn.Conv2d)] for layer in parts]
    return all(
        isinstance(layer, nn.Sequential) and len(found) == 1 and found[0].stride == (1, 1)
        for layer, found in zip(chain.layers, convolutions, strict=True)
    ) and any(isinstance(part, POOLS) for layer in parts for part in layer)

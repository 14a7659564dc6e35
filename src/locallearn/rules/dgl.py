"""DGL: Decoupled Greedy Learning of CNNs (Belilovsky et al., ICML 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch.nn.functional as F
from torch import Tensor, nn

from locallearn._nn.init import he_normal_
from locallearn._objectives.auxiliary import Auxiliary, Head
from locallearn._objectives.objective import Site
from locallearn._utils.errors import LocalLearnError
from locallearn.rules.base import Rule


@dataclass(frozen=True, kw_only=True)
class DGL(Rule):
    """One cross-entropy loss per module behind a small convolutional and fully connected head (MLP-SR-aux).

    The head pools the C x H x W features to a quarter of their size, applies `convolutions` times conv1x1 - BN - ReLU
    at width C, pools to 2 x 2, applies `hidden` times Linear(4C, 4C) - BN - ReLU, and a linear classifier.

    `DGL()` is the head of the AugLocal comparison (official code of AugLocal, `networks/auxiliary_nets.py`; AugLocal,
    Table 6), on which all published tables build; `DGL.original()` is the head of DGL's own repository
    (`auxiliary_nets_study/models.py`): three hidden layers with bias, always on 2 x 2. Maps are pooled to a quarter of
    what they are; AugLocal's code infers their size from their width, so that on VGG the last stage's, 14 x 14, count
    as 28 x 28 and are pooled to 7 x 7 instead of 4 x 4.
    The original's immediate optimizer step per module is the training option `step="module"`.

    Args:
        convolutions: number of convolutions.
        kernel: their kernel's height and width, odd.
        hidden: number of hidden fully connected layers.
        bias: whether the hidden layers have one (batch normalisation follows them).
        pooled: height and width that the fully connected part sees at most.
        enlarge: whether a map smaller than `pooled` is repeated up to it, as adaptive pooling does.
    """

    convolutions: int = 3
    kernel: int = 1
    hidden: int = 2
    bias: bool = False
    pooled: int = 2
    enlarge: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.convolutions, self.hidden) < 0 or self.pooled < 1:
            raise LocalLearnError("DGL: convolutions and hidden must be at least 0, and pooled at least 1.")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise LocalLearnError(f"DGL: kernel={self.kernel} must be odd.")

    @classmethod
    def original(cls) -> DGL:
        """The head of DGL's own repository."""
        return cls(hidden=3, bias=True, enlarge=True)

    def auxiliary(self, site: Site) -> Auxiliary:
        channels, height, width = site.shape
        quarter = ceil(height / 4), ceil(width / 4)
        grid = [self.pooled if self.enlarge else min(size, self.pooled) for size in quarter]
        features = channels * grid[0] * grid[1]
        parts: list[nn.Module] = [nn.Unflatten(1, site.shape)] if site.is_vector else []
        parts.append(PoolToQuarter())
        for _ in range(self.convolutions):
            convolution = nn.Conv2d(channels, channels, self.kernel, padding=self.kernel // 2, bias=False)
            parts += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        parts += [nn.AdaptiveAvgPool2d((grid[0], grid[1])), nn.Flatten()]
        for _ in range(self.hidden):
            parts += [nn.Linear(features, features, self.bias), nn.BatchNorm1d(features), nn.ReLU(inplace=True)]
        network = nn.Sequential(*parts, nn.Linear(features, site.classes))
        he_normal_(network)
        return Head(network, site.loss)


class PoolToQuarter(nn.Module):
    """Average pooling of maps, or patches of them, to a quarter of their height and width, rounded up."""

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, (ceil(x.shape[2] / 4), ceil(x.shape[3] / 4)))

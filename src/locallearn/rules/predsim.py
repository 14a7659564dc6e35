r"""PredSim: Training Neural Networks with Local Error Signals (Nøkland & Eidnes, ICML 2019).

For a batch of B images, features :math:`H` of a local module and one-hot labels :math:`Y`:

.. math::
    \mathcal{L}_{\mathrm{predsim}} = (1 - \beta)\, \mathcal{L}_{\mathrm{pred}} + \beta\, \mathcal{L}_{\mathrm{sim}},

.. math::
    \mathcal{L}_{\mathrm{pred}} = \mathrm{CE}\bigl(W\, \mathrm{pool}(H) + b,\; Y\bigr), \qquad
    \mathcal{L}_{\mathrm{sim}} = \frac{1}{B^2} \bigl\lVert S(a(\mathrm{conv}_{3\times3} H)) - S(Y) \bigr\rVert_F^2 .

S is the B x B matrix of cosine similarities of rows, each centred on its mean; a takes the standard deviation of each
channel. The factor 1 / B^2 is the official code's.

====================== ==================================================================
symbol                 here
====================== ==================================================================
:math:`\beta`          `PredSim.beta`
:math:`W, b`           `PredSim._prediction`, on at most `inputs` values
:math:`S`              `similarity` in `_nn/losses.py`
:math:`a`              `channel_deviations` in `_nn/losses.py`
====================== ==================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch.nn.functional as F
from torch import Tensor, nn

from locallearn._nn.init import he_normal_
from locallearn._nn.losses import channel_deviations, similarity_matching
from locallearn._objectives.auxiliary import Auxiliary, Head, Outputs, WeightedSum
from locallearn._objectives.objective import Site, Span
from locallearn._utils.errors import LocalLearnError
from locallearn.rules.base import Rule


@dataclass(frozen=True, kw_only=True)
class PredSim(Rule):
    r"""Two losses per module: (1 - beta) * cross entropy + beta * similarity matching.

    ====================== ======================================= =========================================
    \                      `PredSim()`                             `PredSim.original()`
    ====================== ======================================= =========================================
    inputs of W            at most 512                             at most 4096
    W starts               as PyTorch starts it                    at zero
    last module's loss     weight 1                                weight 1 - beta
    source                 official code of AugLocal,              official code, `train.py`
                           `networks/auxiliary_nets.py`,
                           `networks/losses.py`; AugLocal, Table 6
    ====================== ======================================= =========================================

    In PredSim's repository each single convolution is a module, with an Adam of its own, and the backbone's classifier
    starts at zero as well; here modules end where layers do, and the backbone's first weights are the user's.

    Args:
        beta: share of similarity matching, from 0 to 1.
        inputs: the linear classifier sees at most this many values.
        zero_start: whether its weights start at zero.
        weigh_output: whether the last module's loss has weight 1 - beta too.
    """

    beta: float = 0.99
    inputs: int = 512
    zero_start: bool = False
    weigh_output: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise LocalLearnError(f"PredSim: beta={self.beta} is outside [0, 1].")
        if self.inputs < 1:
            raise LocalLearnError(f"PredSim: inputs={self.inputs} must be at least 1.")

    @classmethod
    def original(cls) -> PredSim:
        """The form of PredSim's own repository."""
        return cls(inputs=4096, zero_start=True, weigh_output=True)

    def spans(self, modules: int) -> list[Span]:
        last = 1 - self.beta if self.weigh_output and modules > 1 else 1.0
        return [Span(first=m, last=m, weight=last if m == modules - 1 else 1.0) for m in range(modules)]

    def auxiliary(self, site: Site) -> Auxiliary:
        beta = self.beta
        return WeightedSum([(1 - beta, self._prediction(site)), (beta, SimilarityMatching(site))])

    def _prediction(self, site: Site) -> Head:
        channels, height, width = site.shape
        kernel = pool_kernel(site.shape, self.inputs)
        grid = ceil(height / kernel[0]), ceil(width / kernel[1])
        linear = nn.Linear(channels * grid[0] * grid[1], site.classes)
        if self.zero_start:
            nn.init.zeros_(linear.weight)
        pool = [] if site.is_vector else [PoolToGrid((height, width), kernel), nn.Flatten()]
        return Head(nn.Sequential(*pool, linear), site.loss)


class SimilarityMatching(Auxiliary):
    """Similarity matching after conv3x3(C, C) without bias, or after Linear(C, C) where features are vectors.

    Maps of at most three channels or of height 1 are flattened; all others are compared by the standard deviations of
    their channels (official code, `train.py`).
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        channels = site.shape[0]
        self.classes = site.classes
        self.flat = site.is_vector or channels <= 3 or site.shape[1] == 1
        self.network: nn.Module = (
            nn.Linear(channels, channels, bias=False)
            if site.is_vector
            else nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        )
        he_normal_(self.network)

    def outputs(self, features: Tensor, images: Tensor) -> Tensor:
        maps = self.network(features)
        return maps.flatten(1) if self.flat else channel_deviations(maps)

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(outputs, Tensor)
        return similarity_matching(outputs, labels, self.classes)


class PoolToGrid(nn.Module):
    """Average pooling of maps of one size with a kernel; maps of another size (patches) are pooled to the same grid.

    Where the kernel does not divide the size, half a kernel of zeros is added on both sides and enters the average.
    """

    def __init__(self, size: tuple[int, int], kernel: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.kernel = size, kernel
        self.padding = tuple(k // 2 if s % k else 0 for s, k in zip(size, kernel, strict=True))
        self.grid = ceil(size[0] / kernel[0]), ceil(size[1] / kernel[1])

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] == self.size:
            return F.avg_pool2d(x, self.kernel, padding=self.padding)
        return F.adaptive_avg_pool2d(x, self.grid)


def pool_kernel(shape: tuple[int, int, int], inputs: int) -> tuple[int, int]:
    """The pooling kernel: its height, then its width, are doubled in turn until at most `inputs` values are left."""
    channels, height, width = shape
    kernel = [1, 1]
    turn = 0
    while channels * ceil(height / kernel[0]) * ceil(width / kernel[1]) > inputs and (
        kernel[0] < height or kernel[1] < width
    ):
        kernel[turn] *= 2
        turn = 1 - turn
    return kernel[0], kernel[1]

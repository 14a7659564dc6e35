r"""DGL: Decoupled Greedy Learning of CNNs (Belilovsky et al., ICML 2020).

Each local module j, with output :math:`x_{j+1}` of C channels, minimises the cross entropy of its own head
(MLP-SR-aux), and passes its output on without a gradient:

.. math::
    \min_{\theta_j, \gamma_j} \mathcal{L}\bigl(g_{\gamma_j}(x_{j+1}),\, y\bigr), \qquad
    x_{j+1} = f_{\theta_j}(\mathrm{sg}(x_j)),

.. math::
    g_{\gamma}(x) = W\, \phi^{\,h}\!\bigl(\mathrm{pool}_{s}\, \psi^{\,c}(\mathrm{pool}_{1/4}\, x)\bigr) + b, \qquad
    \psi = \mathrm{ReLU} \circ \mathrm{BN} \circ \mathrm{conv}_{1\times1}, \quad
    \phi = \mathrm{ReLU} \circ \mathrm{BN} \circ \mathrm{Linear}.

====================== ==================================================================
symbol                 setting
====================== ==================================================================
c                      `convolutions`; all have C channels
h                      `hidden`; all have as many units as the pooled features, 4C
s                      `pooled`: s x s positions are left
====================== ==================================================================
"""

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
    r"""One cross-entropy loss per module, of a small convolutional and fully connected head.

    `DGL()` is the head of the AugLocal comparison, on which AugLocal's tables build. `DGL.original()` is the head of
    DGL's own repository. `DGL.manpp()` is the head of MAN++'s runs of DGL (official code, `auxDGL.py`), a file that
    MLAAN's code names too: maps are pooled to 8 x 8, the convolutions have 128 channels, average pooling follows, and
    three hidden layers of 512 units have biases. HPFF and MAN publish no code for DGL.

    ====================== ======================================= =========================================
    \                      `DGL()`                                 `DGL.original()`
    ====================== ======================================= =========================================
    hidden layers          2, without bias                         3, with bias
    small maps             pooled to what they have                always 2 x 2, repeated up to it
    optimizer              steps after all modules                 steps after each: the training option
                                                                   `step="module"`
    source                 official code of AugLocal,              official code, `auxiliary_nets_study/
                           `networks/auxiliary_nets.py`;           models.py`
                           AugLocal, Table 6
    ====================== ======================================= =========================================

    Maps are pooled to a quarter of their own size. AugLocal's code infers the size from the width, so on VGG the last
    stage's maps of 14 x 14 count as 28 x 28 and are pooled to 7 x 7; here they are pooled to 4 x 4.

    Args:
        convolutions: number of convolutions.
        kernel: their kernel's height and width, odd.
        hidden: number of hidden fully connected layers.
        bias: whether the hidden layers have one (batch normalisation follows them).
        pooled: height and width that the fully connected part sees at most.
        enlarge: whether a map smaller than `pooled` is repeated up to it, as adaptive pooling does.
        grid: height and width that the convolutions see; by default a quarter of the map's.
        channels: of the convolutions; by default the module's.
        units: of each hidden layer; by default as many as the pooled features.
    """

    convolutions: int = 3
    kernel: int = 1
    hidden: int = 2
    bias: bool = False
    pooled: int = 2
    enlarge: bool = False
    grid: int | None = None
    channels: int | None = None
    units: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.convolutions, self.hidden) < 0 or self.pooled < 1:
            raise LocalLearnError("DGL: convolutions and hidden must be at least 0, and pooled at least 1.")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise LocalLearnError(f"DGL: kernel={self.kernel} must be odd.")
        for name in ("grid", "channels", "units"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LocalLearnError(f"DGL: {name}={value} must be a whole number from 1, or None.")

    @classmethod
    def original(cls) -> DGL:
        """The head of DGL's own repository."""
        return cls(hidden=3, bias=True, enlarge=True)

    @classmethod
    def manpp(cls) -> DGL:
        """The head of MAN++'s runs of DGL."""
        return cls(hidden=3, bias=True, pooled=1, enlarge=True, grid=8, channels=128, units=512)

    def auxiliary(self, site: Site) -> Auxiliary:
        before, height, width = site.shape
        seen = (self.grid, self.grid) if self.grid else (ceil(height / 4), ceil(width / 4))
        pooled = [self.pooled if self.enlarge else min(size, self.pooled) for size in seen]
        channels = (self.channels or before) if self.convolutions else before
        features = channels * pooled[0] * pooled[1]
        parts: list[nn.Module] = [nn.Unflatten(1, site.shape)] if site.is_vector else []
        parts.append(nn.AdaptiveAvgPool2d(self.grid) if self.grid else PoolToQuarter())
        for _ in range(self.convolutions):
            convolution = nn.Conv2d(before, channels, self.kernel, padding=self.kernel // 2, bias=False)
            parts += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            before = channels
        parts += [nn.AdaptiveAvgPool2d((pooled[0], pooled[1])), nn.Flatten()]
        for _ in range(self.hidden):
            units = self.units or features
            parts += [nn.Linear(features, units, self.bias), nn.BatchNorm1d(units), nn.ReLU(inplace=True)]
            features = units
        network = nn.Sequential(*parts, nn.Linear(features, site.classes))
        he_normal_(network)
        return Head(network, site.loss)


class PoolToQuarter(nn.Module):
    """Average pooling of maps, or patches of them, to a quarter of their height and width, rounded up."""

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, (ceil(x.shape[2] / 4), ceil(x.shape[3] / 4)))

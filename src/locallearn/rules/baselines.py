r"""Baselines: end-to-end backpropagation, gradient checkpointing, and local heads that only pool.

With layers :math:`f_\theta`, a classifier :math:`g` and the loss :math:`\mathcal{L}`, `BP` and `Checkpoint` have one
objective, and `Pooling` one for each local module j with output :math:`x_{j+1}`:

.. math::
    \mathcal{L}\bigl(g(f_\theta(x)),\, y\bigr) \qquad\text{and}\qquad
    \mathcal{L}\bigl(W_j\, \mathrm{GAP}(x_{j+1}) + b_j,\, y\bigr),

where GAP averages each channel over its positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from locallearn._nn.global_pool import GlobalAverage
from locallearn._nn.init import he_normal_
from locallearn._objectives.auxiliary import Auxiliary, Head
from locallearn._objectives.objective import Site, Span
from locallearn.rules.base import Rule


@dataclass(frozen=True, kw_only=True)
class BP(Rule):
    """Backpropagation: one objective, from the first module to the classifier."""

    def spans(self, modules: int) -> list[Span]:
        return [Span(first=0, last=modules - 1)]


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Rule):
    """Backpropagation that stores only each layer's input and recomputes the layer in the backward pass.

    Gradients are those of `BP`; running statistics move once and random numbers are replayed.
    Source: Chen et al. 2016, Training deep nets with sublinear memory cost, arXiv:1604.06174.
    """

    def spans(self, modules: int) -> list[Span]:
        return [Span(first=0, last=modules - 1, recompute=True)]


@dataclass(frozen=True, kw_only=True)
class Pooling(Rule):
    """One cross-entropy loss per module after average pooling and a linear classifier.

    MLAAN without another base has these heads (official code, `resnetMLAAN.py`); InfoPro and AugLocal call them 0c1f.
    """

    def auxiliary(self, site: Site) -> Auxiliary:
        pool = [] if site.is_vector else [GlobalAverage()]
        return Head(nn.Sequential(*self.convolutions(site), *pool, nn.Linear(site.channels, site.classes)), site.loss)

    def convolutions(self, site: Site) -> list[nn.Module]:
        """What stands before the pooling: nothing."""
        return []


@dataclass(frozen=True, kw_only=True)
class ImageNetPooling(Pooling):
    """`Pooling` after conv1x1(C, 2 C) and conv1x1(2 C, C), each with BN and ReLU, where C is less than 256.

    The heads of MLAAN's runs on ImageNet (official code, `auxnet34.py`, `auxnet101.py`): those of ResNet-34's first two
    stages have the convolutions, ResNet-101 is never as narrow.
    """

    def convolutions(self, site: Site) -> list[nn.Module]:
        channels = site.channels
        if site.is_vector or channels >= 256:
            return []
        parts: list[nn.Module] = []
        for before, after in ((channels, 2 * channels), (2 * channels, channels)):
            parts += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        he_normal_(nn.ModuleList(parts))
        return parts

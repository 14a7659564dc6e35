r"""InfoPro: Revisiting Locally Supervised Learning, an Alternative to End-to-end Training (Wang et al., ICLR 2021).

Local module i = 0 ... K-2 of K, with output h, minimises a reconstruction loss of the image x and a task loss; the last
module has the network's own loss:

.. math::
    \mathcal{L}_i = \lambda_{1,i}\, \mathcal{R}(d_i(h), x) + \lambda_{2,i}\, \mathcal{T}(g_i(h), y),

.. math::
    \lambda_{\cdot,i} = (1 - r_i)\, \lambda_{\cdot}^{\mathrm{first}} + r_i\, \lambda_{\cdot}^{\mathrm{last}}, \qquad
    r_i = \frac{i}{K - 2}.

R is the binary cross entropy between the decoder's output and the image in [0, 1]; T is cross entropy, or the
supervised contrastive loss.

====================== ==================================================================
symbol                 here
====================== ==================================================================
:math:`\lambda_1`      `lambda1`, (first, last); `interpolate` gives module i's
:math:`\lambda_2`      `lambda2`, likewise
:math:`r_i`            `site.progress`
:math:`d_i`            `decoder`; :math:`\mathcal{R}` is `reconstruct`
:math:`g_i`            `task_network`, by the setting `head`
:math:`\mathcal{T}`    `task_loss`
====================== ==================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import inf
from numbers import Real
from typing import Literal

from torch import Tensor, nn

from locallearn._nn.global_pool import GlobalAverage
from locallearn._nn.init import he_normal_
from locallearn._nn.losses import supervised_contrastive
from locallearn._nn.padded_conv import PaddedConv
from locallearn._objectives.auxiliary import Auxiliary, Head, WeightedSum
from locallearn._objectives.decoders import Decoder, PyramidDecoder, Reconstruction
from locallearn._objectives.objective import Site
from locallearn._utils.errors import LocalLearnError, refuse_unknown
from locallearn.rules.base import Rule
from locallearn.rules.wrapper import with_base

Weights = tuple[float, float]
"""Weight of the first local module and of the last one that has an auxiliary network; linear between them."""

DecoderStep = tuple[int, int, int]

TaskLoss = Literal["cross-entropy", "contrastive"]


@dataclass(frozen=True, kw_only=True)
class InfoPro(Rule):
    """Two losses per module: lambda1 * reconstruction of the image + lambda2 * task.

    The decoder upsamples the features to the image's size, then has conv3x3(C, 12) - BN - ReLU - conv3x3(12, 3). The
    task head `NcMf` has N convolutions 3x3 with BN and ReLU, average pooling and M linear layers with 128 units between
    them. Its first convolution doubles the width, up to the network's last width, with stride 2 where it does.

    `InfoPro.published(name)` gives each paper's settings:

    ====================== ========================================================================================
    settings               form
    ====================== ========================================================================================
    `InfoPro()`            of the AugLocal comparison, weights for ResNet-32: head 1c2f, cross entropy
    `original()`           InfoPro's own for ResNet-32 in 16 modules: head 1c2f, contrastive
    `hpff()`               of HPFF and MAN: head 2c2f, cross entropy, weights that end at 0. K is the number in the
                           name of their split: 16 for 15 modules, 55 for 54
    ====================== ========================================================================================

    MLAAN's published runs (`published("mlaan")`) have the weights of `hpff()`, head 1c2f, and K of the modules
    themselves, 8 or 15. Where its code, or that of MAN++, names no head, the head is 1c2f with the contrastive loss
    (`MLM`, `MANPP`).

    Args:
        head: the task head, `0c1f`, `0c2f`, `1c1f`, `1c2f`, `1c3f`, `2c2f` or alike.
        task_loss: "cross-entropy", which is the loss given to `localize`; or "contrastive": supervised contrastive loss
            on 128 normalised outputs at temperature 0.07. It gives no logits, and 0 for an image that is the only one
            of its class in the batch.
        lambda1, lambda2: weights of reconstruction and task in the first and in the last module.
    """

    head: str = "1c2f"
    task_loss: TaskLoss = "cross-entropy"
    lambda1: Weights = (5.0, 0.2)
    lambda2: Weights = (0.05, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._layers()
        for name, weights in (("lambda1", self.lambda1), ("lambda2", self.lambda2)):
            refuse_weights(f"InfoPro: {name}", weights)

    @classmethod
    def original(cls) -> InfoPro:
        """InfoPro's own form: the contrastive loss, with its weights for ResNet-32 in 16 modules."""
        return cls.published("infopro-resnet32-16")

    @classmethod
    def hpff(cls) -> InfoPro:
        """The form of HPFF's and MAN's published runs: head 2c2f, weights that end at 0."""
        return cls.published("hpff")

    @classmethod
    def published(cls, name: str) -> InfoPro:
        """A paper's settings by name, such as `hpff` or `infopro-resnet110-16`."""
        refuse_unknown("published settings", name, tuple(_PUBLISHED))
        return _PUBLISHED[name]

    def with_default_head(self) -> InfoPro:
        """The same weights with the head of the official code's default arguments: 1c2f and the contrastive loss."""
        return replace(self, head="1c2f", task_loss="contrastive")

    def auxiliary(self, site: Site) -> Auxiliary:
        return WeightedSum(
            [
                (interpolate(self.lambda1, site), reconstruct(self.decoder(site), site)),
                (interpolate(self.lambda2, site), self._task(site)),
            ]
        )

    def _task(self, site: Site) -> Auxiliary:
        if self.task_loss == "contrastive":
            return ContrastiveHead(initialised(self.task_network(site, FEATURES)))
        return Head(initialised(self.task_network(site, site.classes)), site.loss)

    def decoder(self, site: Site) -> nn.Module:
        """From features to logits of the image."""
        return Decoder(site.shape, site.image_shape[0])

    def task_network(self, site: Site, outputs: int) -> nn.Module:
        """From features to logits, or to what the contrastive loss compares."""
        convolutions, linears = self._layers()
        before, last = site.shape[0], site.chain.width(len(site.chain) - 1)
        width = max(before, min(2 * before, last)) if convolutions else before
        parts: list[nn.Module] = [nn.Unflatten(1, site.shape)] if site.is_vector else []
        for _ in range(convolutions):
            stride = 2 if width > before else 1
            parts += [PaddedConv(before, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            before = width
        parts += [GlobalAverage()]
        for _ in range(linears - 1):
            parts += [nn.Linear(width, FEATURES), nn.ReLU(inplace=True)]
            width = FEATURES
        return nn.Sequential(*parts, nn.Linear(width, outputs))

    def _layers(self) -> tuple[int, int]:
        found = re.fullmatch(r"(\d)c([1-9])f", self.head)
        if found is None:
            raise LocalLearnError(
                f"InfoPro: head={self.head!r}: write how many convolutions and linear layers, as in 1c2f."
            )
        return int(found[1]), int(found[2])


@dataclass(frozen=True, kw_only=True)
class ImageNetInfoPro(InfoPro):
    """InfoPro for ImageNet: a decoder that upsamples step by step, and a head of four convolutions.

    The decoder is conv1x1(C, 128), conv3x3(128, 32) and conv3x3(32, 12), after which maps have a quarter, a half and
    the whole of the image's size, and conv3x3(12, 3). Of 1,024 channels it is that of MAN and MAN++: conv1x1 to 192 and
    to 64 channels, conv3x3 to 32 and 12; sizes begin with an eighth. The head is conv1x1(C, C / 4 but at least 128),
    conv3x3(256) and conv3x3(512) of stride 2, conv1x1(2048), each with BN and ReLU, then average pooling and a linear
    classifier; `head` is not used. Weights are constant: 5 and 0.75, and 5 and 1 for ResNet-152. Source: InfoPro,
    official code (ImageNet, `networks/resnet.py`, `imagenet_DDP.py`).
    """

    lambda1: Weights = (5.0, 5.0)
    lambda2: Weights = (0.75, 0.75)

    def with_default_head(self) -> InfoPro:
        """The rule itself: the code for ImageNet has one head."""
        return self

    def decoder(self, site: Site) -> nn.Module:
        return PyramidDecoder(site.shape[0], site.image_shape[0], self.decoder_steps(site.shape[0]))

    def decoder_steps(self, channels: int) -> tuple[DecoderStep, ...]:
        """The decoder's convolutions: channels, kernel, and which part of the image's size follows."""
        if channels == 1024:  # MAN and MAN++, official code (ImageNet, `InfoProAux.py`)
            return (192, 1, 8), (64, 1, 4), (32, 3, 2), (12, 3, 1)
        return (128, 1, 4), (32, 3, 2), (12, 3, 1)

    def task_network(self, site: Site, outputs: int) -> nn.Module:
        channels = site.shape[0]
        layers = ((max(128, channels // 4), 1, 1), (256, 3, 2), (512, 3, 2), (2048, 1, 1))
        parts: list[nn.Module] = [nn.Unflatten(1, site.shape)] if site.is_vector else []
        for width, kernel, stride in layers:
            parts += [PaddedConv(channels, width, kernel, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        return nn.Sequential(*parts, GlobalAverage(), nn.Linear(channels, outputs))


@dataclass(frozen=True, kw_only=True)
class HPFFImageNetInfoPro(ImageNetInfoPro):
    """InfoPro as in HPFF's code for ImageNet, one decoder for whole maps; `HPFF.imagenet()` puts it in cascades.

    That code adds the cross entropies of four parts of the decoder's output. At 224 pixels that is four times the whole
    image's, so lambda1 is 20 for its 5. Source: HPFF, official code (ImageNet, `networks/InfoProAux.py`).
    """

    lambda1: Weights = (20.0, 20.0)

    def decoder_steps(self, channels: int) -> tuple[DecoderStep, ...]:
        if channels <= 256:
            return (128, 1, 2), (16, 3, 1)
        if channels <= 512:
            return (128, 1, 4), (32, 3, 2), (16, 3, 1)
        return (128, 1, 2), (64, 3, 4), (32, 3, 2), (16, 3, 1)


class ContrastiveHead(Head):
    """A head trained by the supervised contrastive loss of its outputs; it gives no logits."""

    needs_class_indices = True

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, supervised_contrastive)

    def logits(self, features: Tensor) -> None:
        return None


def with_default_head(rule: Rule) -> Rule:
    """A rule whose InfoPro inside, if any, has its default head (`InfoPro.with_default_head`)."""
    return with_base(rule, lambda base: base.with_default_head() if isinstance(base, InfoPro) else base)


def interpolate(weights: Weights, site: Site) -> float:
    """The weight of a site's module: (1 - r) first + r last, with r = i / (K - 2)."""
    (first, last), r = weights, site.progress
    return first * (1 - r) + last * r


def refuse_weights(name: str, weights: Weights) -> None:
    """Refuse anything but two finite weights from 0."""
    is_pair = isinstance(weights, tuple | list) and len(weights) == 2
    if not is_pair or not all(isinstance(weight, Real) and 0 <= weight < inf for weight in weights):
        raise LocalLearnError(f"{name}={weights}: give two weights, of the first and the last module, none negative.")


def reconstruct(decoder: nn.Module, site: Site) -> Reconstruction:
    """The reconstruction loss of a site's images by a decoder."""
    return Reconstruction(initialised(decoder), site.shape[1:], site.image_mean, site.image_std)


def initialised(network: nn.Module) -> nn.Module:
    """The network, with first weights as in the official code."""
    he_normal_(network)
    return network


FEATURES = 128
"""Units between the linear layers of a task head, and outputs for the contrastive loss."""


def _contrastive(lambda1: Weights, lambda2: Weights) -> InfoPro:
    return InfoPro(task_loss="contrastive", lambda1=lambda1, lambda2=lambda2)


_PUBLISHED = {
    "auglocal-resnet32": InfoPro(),
    "auglocal-resnet110": InfoPro(lambda1=(5.0, 0.5), lambda2=(0.0, 1.0)),
    "hpff": InfoPro(head="2c2f", lambda1=(5.0, 0.0), lambda2=(0.5, 0.0)),
    "mlaan": InfoPro(lambda1=(5.0, 0.0), lambda2=(0.5, 0.0)),
    "infopro-resnet32-2": _contrastive((5.0, 0.0), (1.0, 0.0)),
    "infopro-resnet32-4": _contrastive((6.0, 1.0), (0.0, 2.0)),
    "infopro-resnet32-8": _contrastive((5.0, 0.0), (0.0, 2.0)),
    "infopro-resnet32-16": _contrastive((5.0, 0.2), (0.05, 0.5)),
    "infopro-resnet110-2": _contrastive((5.0, 0.0), (0.5, 0.0)),
    "infopro-resnet110-4": _contrastive((1.0, 0.0), (0.0, 1.0)),
    "infopro-resnet110-8": _contrastive((5.0, 0.0), (0.0, 1.0)),
    "infopro-resnet110-16": _contrastive((5.0, 0.5), (0.0, 1.0)),
    "infopro-balanced-resnet110-2": _contrastive((5.0, 0.0), (0.1, 0.0)),
    "infopro-balanced-resnet110-3": _contrastive((5.0, 5.0), (0.0, 0.1)),
    "infopro-balanced-resnet110-4": _contrastive((5.0, 5.0), (0.0, 0.1)),
    "infopro-stl10-resnet110-2": _contrastive((10.0, 0.0), (1.0, 0.0)),
    "infopro-stl10-resnet110-4": _contrastive((20.0, 5.0), (0.2, 2.0)),
    "infopro-stl10-resnet110-8": _contrastive((20.0, 5.0), (0.2, 1.0)),
    "infopro-stl10-resnet110-16": _contrastive((20.0, 10.0), (0.5, 0.1)),
    "infopro-balanced-stl10-resnet110-2": _contrastive((20.0, 0.0), (1.0, 0.0)),
    "infopro-balanced-stl10-resnet110-3": _contrastive((20.0, 5.0), (0.5, 2.0)),
    "infopro-balanced-stl10-resnet110-4": _contrastive((20.0, 10.0), (0.5, 1.0)),
    "infopro-svhn-resnet110-2": _contrastive((1.0, 0.0), (0.1, 0.0)),
    "infopro-svhn-resnet110-4": _contrastive((5.0, 0.5), (0.0, 1.0)),
    "infopro-svhn-resnet110-8": _contrastive((5.0, 0.5), (0.0, 2.0)),
    "infopro-svhn-resnet110-16": _contrastive((5.0, 0.5), (0.2, 1.0)),
    "imagenet-resnet101": ImageNetInfoPro(),
    "imagenet-resnext101": ImageNetInfoPro(),
    "imagenet-hpff": HPFFImageNetInfoPro(),
    "imagenet-resnet152": ImageNetInfoPro(lambda2=(1.0, 1.0)),
}
"""Settings by name, for CIFAR-10 where it names no data; lambda1 and lambda2 as (first, last).

Sources, all official code: AugLocal, `run.sh`; HPFF and MAN, README and `train.py`; InfoPro's own, `comand.sh`, with
the number of modules last in the name; ImageNet, `imagenet_DDP.py`.
"""

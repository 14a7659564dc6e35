"""InfoPro: Revisiting Locally Supervised Learning, an Alternative to End-to-end Training (Wang et al., ICLR 2021)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from numbers import Real
from typing import Literal, get_args

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
from locallearn.rules.wrapper import Wrapper

Weights = tuple[float, float]
"""Weight of the first local module and of the last one that has an auxiliary network; linear between them."""

TaskLoss = Literal["cross-entropy", "contrastive"]


@dataclass(frozen=True, kw_only=True)
class InfoPro(Rule):
    """Two losses per module: lambda1 * reconstruction of the image + lambda2 * task.

    The decoder upsamples the features to the image's size, conv3x3(C, 12) - BN - ReLU - conv3x3(12, 3); its loss is
    binary cross entropy against the image in [0, 1]. The task head `NcMf` has N convolutions 3x3 with BN and ReLU, of
    which the first doubles the width with stride 2 up to the network's last width, then average pooling and M linear
    layers with 128 units between them. Weights go linearly over the modules, by i / (K - 2).

    `InfoPro()` is the form of the AugLocal comparison, with its weights for ResNet-32 (official code of AugLocal,
    `run.sh`): cross entropy, head 1c2f. `InfoPro.published(name)` gives each paper's settings by name; InfoPro's own
    (`comand.sh`) use the contrastive loss. HPFF, MAN and MLAAN stand on head 2c2f and count a split's stem in K.

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
        refuse_unknown("task_loss", self.task_loss, get_args(TaskLoss))
        for name, weights in (("lambda1", self.lambda1), ("lambda2", self.lambda2)):
            refuse_weights(f"InfoPro: {name}", weights)

    @classmethod
    def original(cls) -> InfoPro:
        """InfoPro's own form: the contrastive loss, with its weights for ResNet-32 in 16 modules."""
        return cls.published("infopro-resnet32-16")

    @classmethod
    def hpff(cls) -> InfoPro:
        """The form on which HPFF, MAN and MLAAN were published: head 2c2f, weights that end at 0."""
        return cls.published("hpff")

    @classmethod
    def published(cls, name: str) -> InfoPro:
        """The settings of a paper by name, `hpff` or `infopro-resnet110-16` for instance; a wrong name lists all."""
        refuse_unknown("published settings", name, tuple(_PUBLISHED))
        return _PUBLISHED[name]

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
                f"InfoPro: head={self.head!r}: write how many convolutions and linear layers, as 1c2f."
            )
        return int(found[1]), int(found[2])


@dataclass(frozen=True, kw_only=True)
class ImageNetInfoPro(InfoPro):
    """InfoPro as for ImageNet: a decoder that upsamples in three steps, and a head of four convolutions.

    The head is conv1x1(C, C / 4 but at least 128), conv3x3(256) and conv3x3(512) of stride 2, conv1x1(2048), each with
    BN and ReLU, then average pooling and a linear classifier; `head` is not used. Weights are constant: 5 and 0.75, and
    5 and 1 for ResNet-152. Source: InfoPro, official code (ImageNet, `networks/resnet.py`, `imagenet_DDP.py`).
    """

    lambda1: Weights = (5.0, 5.0)
    lambda2: Weights = (0.75, 0.75)

    def decoder(self, site: Site) -> nn.Module:
        if min(site.image_shape[1:]) < 4:
            height, width = site.image_shape[1:]
            raise LocalLearnError(f"ImageNetInfoPro needs images of at least 4 x 4 pixels, not {height} x {width}.")
        return PyramidDecoder(site.shape, site.image_shape[0])

    def task_network(self, site: Site, outputs: int) -> nn.Module:
        channels = site.shape[0]
        layers = ((max(128, channels // 4), 1, 1), (256, 3, 2), (512, 3, 2), (2048, 1, 1))
        parts: list[nn.Module] = [nn.Unflatten(1, site.shape)] if site.is_vector else []
        for width, kernel, stride in layers:
            parts += [PaddedConv(channels, width, kernel, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        return nn.Sequential(*parts, GlobalAverage(), nn.Linear(channels, outputs))


@dataclass(frozen=True, kw_only=True)
class InfoProLoss(Wrapper):
    """Any rule, with InfoPro's reconstruction beside its own loss: lambda1 * reconstruction + lambda2 * the rule's.

    `InfoProLoss(AugLocal(depth=4))` is AugLocal with the InfoPro loss (AugLocal, Table 13 and section A.9, which keeps
    the auxiliary networks and adds a decoder to each); the weights are not published.

    Args:
        lambda1, lambda2: weights in the first and in the last module.
    """

    does = frozenset({"adds a reconstruction loss"})

    lambda1: Weights = (5.0, 0.2)
    lambda2: Weights = (1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.base, InfoPro):
            raise LocalLearnError(
                "InfoProLoss adds a reconstruction loss, and InfoPro has one: set its lambda1 instead."
            )
        for name, weights in (("lambda1", self.lambda1), ("lambda2", self.lambda2)):
            refuse_weights(f"InfoProLoss: {name}", weights)

    def auxiliary(self, site: Site) -> Auxiliary:
        decoder = Decoder(site.shape, site.image_shape[0])
        return WeightedSum(
            [
                (interpolate(self.lambda1, site), reconstruct(decoder, site)),
                (interpolate(self.lambda2, site), self.rule.auxiliary(site)),
            ]
        )


class ContrastiveHead(Head):
    """A head whose outputs are compared by the supervised contrastive loss; it gives no logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, supervised_contrastive)

    def logits(self, features: Tensor) -> None:
        return None


def interpolate(weights: Weights, site: Site) -> float:
    """Linear weight of a site: first * (1 - r) + last * r."""
    first, last = weights
    return first * (1 - site.progress) + last * site.progress


def refuse_weights(name: str, weights: Weights) -> None:
    """Refuse what is no pair of weights."""
    numbers = [w for w in weights if isinstance(w, Real) and 0 <= w < inf] if isinstance(weights, tuple | list) else []
    if len(numbers) != 2 or len(weights) != 2:
        raise LocalLearnError(f"{name}={weights}: give two weights, of the first and the last module, none negative.")


def reconstruct(decoder: nn.Module, site: Site) -> Reconstruction:
    """The reconstruction loss of a site's images by a decoder."""
    return Reconstruction(initialised(decoder), site.shape[1:], site.image_mean, site.image_std)


def initialised(network: nn.Module) -> nn.Module:
    """The network, started as the official code starts it."""
    he_normal_(network)
    return network


FEATURES = 128
"""Units between the linear layers of a task head, and outputs for the contrastive loss."""


def _published(lambda1: Weights, lambda2: Weights) -> InfoPro:
    return InfoPro(task_loss="contrastive", lambda1=lambda1, lambda2=lambda2)


_PUBLISHED = {
    "auglocal-resnet32": InfoPro(),
    "auglocal-resnet110": InfoPro(lambda1=(5.0, 0.5), lambda2=(0.0, 1.0)),
    "hpff": InfoPro(head="2c2f", lambda1=(5.0, 0.0), lambda2=(0.5, 0.0)),
    "infopro-resnet32-2": _published((5.0, 0.0), (1.0, 0.0)),
    "infopro-resnet32-4": _published((6.0, 1.0), (0.0, 2.0)),
    "infopro-resnet32-8": _published((5.0, 0.0), (0.0, 2.0)),
    "infopro-resnet32-16": _published((5.0, 0.2), (0.05, 0.5)),
    "infopro-resnet110-2": _published((5.0, 0.0), (0.5, 0.0)),
    "infopro-resnet110-4": _published((1.0, 0.0), (0.0, 1.0)),
    "infopro-resnet110-8": _published((5.0, 0.0), (0.0, 1.0)),
    "infopro-resnet110-16": _published((5.0, 0.5), (0.0, 1.0)),
    "infopro-balanced-resnet110-2": _published((5.0, 0.0), (0.1, 0.0)),
    "infopro-balanced-resnet110-3": _published((5.0, 5.0), (0.0, 0.1)),
    "infopro-balanced-resnet110-4": _published((5.0, 5.0), (0.0, 0.1)),
    "imagenet-resnet101": ImageNetInfoPro(),
    "imagenet-resnext101": ImageNetInfoPro(),
    "imagenet-resnet152": ImageNetInfoPro(lambda2=(1.0, 1.0)),
}
"""Official code: AugLocal `run.sh`; HPFF and MAN, README and `train.py`; InfoPro `comand.sh` and `imagenet_DDP.py`."""

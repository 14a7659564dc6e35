"""Networks of every family through what each network must pass."""

from functools import lru_cache, partial

import pytest
import torch
from tiny_networks import TINY, tiny
from torch import nn

import locallearn as ll
from locallearn.testing import CHECKS, Case, check_network
from networks import HIDDEN_BY_TORCH

IMAGES = (3, 16, 16)
LARGER = (3, 32, 32)
"""For networks whose last strided convolution would see 1 x 1 maps: oneDNN leaves its weight gradient unset in bf16."""
RULES = {  # each network with a rule of another kind
    "resnet, basic blocks": ll.DGL(),
    "resnet, grouped bottlenecks": ll.MAN(ll.Pooling()),
    "vgg": ll.AugLocal.imagenet(depth=2),
    "mobilenet": ll.HiLo(ll.Pooling()),
    "efficientnet": ll.PredSim(),
    "regnet": ll.MLAAN(),
    "convnext": ll.InfoPro(),
    "timm convnext": ll.LAM(),
    "vit": ll.Pooling(),
    "timm vit": ll.MAN(ll.DGL(hidden=1)),
    "timm vit without class token": ll.HPFF(ll.Pooling(), fidelity="paper"),
    "timm vit with registers": ll.AugLocal(depth=2, fidelity="paper"),
    "swin": ll.AugLocal(depth=2),
}
SAME_BLOCKS = {"timm vit", "timm vit without class token"}  # as in "timm vit with registers"; compiling takes longest
# Convolutions with batch normalisation, inverted bottlenecks, layer normalisation over channels, and transformers.
FAMILIES = {"resnet, basic blocks", "mobilenet", "convnext", "vit"}
# Checks that depend on a network's operators more than on the rule.
OF_OPERATORS = {
    "chain_computes_what_the_network_computes",
    "gradients_are_those_of_each_objective",
    "any_image_and_batch_size_trains",
    "mixed_precision_trains",
}
COMPILED = "compiled_trains"
CASES = [
    pytest.param(
        network,
        check,
        id=f"{network}-{check.__name__}",
        marks=() if network in FAMILIES or check.__name__ in OF_OPERATORS else pytest.mark.slow,
    )
    for network in TINY
    for check in CHECKS
    if check.__name__ != COMPILED or network not in SAME_BLOCKS
]


@lru_cache(maxsize=2)
def case(network: str, rule: ll.Rule) -> Case:
    shape = LARGER if network.startswith("resnet") else IMAGES
    return Case(make=partial(calm, network), image_shape=shape, rule=rule)


@HIDDEN_BY_TORCH
@pytest.mark.filterwarnings("ignore:PFF:locallearn.LocalLearnWarning")
@pytest.mark.parametrize(("network", "check"), CASES)
def test_networks_of_every_family_conform(network, check):
    check(case(network, ll.Pooling() if check.__name__ == COMPILED else RULES[network]))


def calm(network: str) -> nn.Module:
    """Without what is random in training: dropout and stochastic depth."""
    model = tiny(network)
    for part in model.modules():
        if isinstance(part, nn.Dropout) or type(part).__name__ == "StochasticDepth":
            part.p = 0.0
    return model


class Forgetful(nn.Module):
    """Its chain leaves out what the forward does last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))

    def forward(self, x):
        return self.head(self.body(self.stem(x))) * 2

    def chain(self) -> ll.Chain:
        return ll.Chain(layers={"stem": self.stem, "body": self.body}, classifier=self.head)


def forgetful() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Forgetful()


def test_one_line_checks_a_network_of_ones_own_and_names_what_fails():
    with pytest.raises(AssertionError, match=r"chain_computes_what_the_network_computes: "):
        check_network(forgetful, IMAGES)

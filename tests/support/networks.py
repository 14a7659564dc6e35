"""Small networks, rules and references that several test files use."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import locallearn as ll
from locallearn.testing.networks import batch as batch, gradients as gradients

RULES: dict[str, ll.Rule] = {
    "BP": ll.BP(),
    "Checkpoint": ll.Checkpoint(),
    "DGL": ll.DGL(),
    "AugLocal d=2": ll.AugLocal(depth=2),
    "AugLocal d=3": ll.AugLocal(depth=3),
    "AugLocal paper": ll.AugLocal(depth=3, fidelity="paper"),
}
ALL_RULES = {**RULES, "DGL.original": ll.DGL.original()}
LOCAL_RULES = {name: rule for name, rule in RULES.items() if name not in ("BP", "Checkpoint")}

# Layers in each local module of ResNet-20 (10 layers), every layer asked for: official AugLocal joins the last `depth`.
RESNET20_MODULES = {
    "BP": [10],
    "Checkpoint": [10],
    "DGL": [1] * 10,
    "AugLocal d=2": [1] * 8 + [2],
    "AugLocal d=3": [1] * 7 + [3],
    "AugLocal paper": [1] * 10,
}
SMALL = (3, 16, 16)

# PyTorch hides this warning of its own compiler from users, but cannot where warnings are errors.
HIDDEN_BY_TORCH = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning",
    "ignore:Guards may run slower on Python 3.13.0:RuntimeWarning",
)


def resnet20(seed: int = 0, num_classes: int = 10) -> nn.Module:
    torch.manual_seed(seed)
    return ll.models.resnet20(num_classes=num_classes)


def fresh_net(rule: str, *, seed: int = 0, modules="all", **options) -> ll.LocalNet:
    """ResNet-20 on 16 x 16 images; equal seeds give equal weights."""
    return ll.localize(resnet20(seed), ALL_RULES[rule], modules=modules, input_shape=SMALL, **options)


def small_net(rule: str, *, seed: int = 0, modules="all", **options) -> ll.LocalNet:
    """As `fresh_net`, but a deep copy of a net built before, which takes a tenth of the time."""
    if options:
        return fresh_net(rule, seed=seed, modules=modules, **options)
    return local_net(ALL_RULES[rule], seed=seed, modules=modules)


def local_net(
    rule: ll.Rule,
    *,
    make: Callable[[int], nn.Module] = resnet20,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    modules="all",
    input_shape=SMALL,
    memory="fast",
) -> ll.LocalNet:
    """A rule on a network, by default ResNet-20 on 16 x 16 images: a deep copy of a net built before."""
    return copy.deepcopy(_built_once(rule, make, seed, dtype, modules, input_shape, memory))


@functools.lru_cache(maxsize=32)
def _built_once(rule, make, seed, dtype, modules, input_shape, memory) -> ll.LocalNet:
    return ll.localize(make(seed).to(dtype), rule, modules=modules, input_shape=input_shape, memory=memory)


def conv_net(seed: int = 0, *, inplace: bool = False, dropout: float = 0.0, classes: int = 5) -> nn.Sequential:
    """Three layers conv-BN-ReLU; with `inplace` the first layer begins with an activation that writes on its input."""
    torch.manual_seed(seed)
    parts: list[nn.Module] = [nn.LeakyReLU(0.2, inplace=inplace)]
    for before, after in ((3, 8), (8, 8), (8, 16)):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        parts += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))


def mlp(
    seed: int = 0, widths: tuple[int, ...] = (12, 12, 12), inputs: int = 3 * 6 * 6, classes: int = 5
) -> nn.Sequential:
    torch.manual_seed(seed)
    parts: list[nn.Module] = [nn.Flatten()]
    for before, after in zip((inputs, *widths), widths, strict=False):
        parts += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(widths[-1], classes))


class Preactivated(nn.Module):
    """A network that says its layers itself; each but the first is an activation and a convolution."""

    def __init__(self, *, inplace: bool, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LeakyReLU(0.2, inplace=inplace), nn.Conv2d(8, 8, 3, padding=1)) for _ in range(4)
        )
        self.classifier = nn.Sequential(
            nn.ReLU(inplace=inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(x)

    def chain(self) -> ll.Chain:
        blocks = {f"block{i}": block for i, block in enumerate(self.blocks)}
        return ll.Chain(layers={"stem": self.stem, **blocks}, classifier=self.classifier)


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def parts(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    """All modules of a kind inside a network."""
    return [part for part in network.modules() if isinstance(part, kind)]


def gradients_of(net: ll.LocalNet, images: Tensor, labels: Tensor, **options) -> dict[str, Tensor | None]:
    net.zero_grad()
    net.backward(images, labels, **options)
    return gradients(net)


def summed_losses(net: ll.LocalNet, sizes: list[int], images: Tensor, labels: Tensor) -> Tensor:
    """Losses of all objectives, features detached between modules. `sizes`: layers in each local module."""
    layers = iter(net.model.chain().layers.values())
    features, losses = images, []
    for size, objective in zip(sizes, net.objectives, strict=True):
        for _ in range(size):
            features = next(layers)(features)
        losses.append(objective.auxiliary(features, images, labels))
        features = features.detach()
    return torch.stack(losses)


def summed_backward(net: ll.LocalNet, sizes: list[int], images: Tensor, labels: Tensor) -> Tensor:
    """The reference: one backward of the sum of all losses."""
    losses = summed_losses(net, sizes, images, labels)
    losses.sum().backward()
    return losses.detach()


def assert_same(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> None:
    """Bit for bit the same tensors under the same names."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if tensor is None:
            assert found[name] is None, name
        else:
            assert found[name] is not None, name
            assert torch.equal(found[name], tensor), name

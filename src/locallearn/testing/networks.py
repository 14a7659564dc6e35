"""Small networks, batches and references for the checks."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from locallearn._chain.layout import Shape
from locallearn._engine.local_net import LocalNet
from locallearn._torch.live_bytes import LiveBytes
from locallearn.models.cifar_resnet import CifarResNet

DOUBLE = torch.float64
SMALL: Shape = (3, 16, 16)
TINY: Shape = (3, 8, 8)


def resnet14(classes: int = 10) -> CifarResNet:
    """Seven layers: the stem, and two residual blocks in each stage; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CifarResNet(14, num_classes=classes)


def plain_chain() -> nn.Sequential:
    """Five layers of convolution, BatchNorm and ReLU, of growing width, without strides; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts: list[nn.Module] = []
        for before, after in ((3, 8), (8, 8), (8, 16), (16, 16), (16, 16)):
            parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def batch(
    images: int = 6, shape: Shape = SMALL, classes: int = 10, seed: int = 1, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Random images and labels; equal seeds give equal ones."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, *shape, generator=generator)
    return pixels.to(dtype), torch.randint(classes, (images,), generator=generator)


def batch_for(net: LocalNet, images: int = 6, *, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random images and labels of the shape, type and classes of a network."""
    dtype = next(net.parameters()).dtype
    return batch(images, net.chain.image_shape, classes=net.chain.classes, seed=seed, dtype=dtype)


def sgd(net: nn.Module) -> torch.optim.SGD:
    """The optimizer of the papers: SGD with Nesterov momentum and weight decay."""
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)


def train_steps(net: LocalNet, optimizer: torch.optim.Optimizer, seeds: Sequence[int]) -> None:
    """Train one step on the batch of each seed."""
    for seed in seeds:
        net.backward(*batch_for(net, seed=seed))
        optimizer.step()
        optimizer.zero_grad()


def gradients(net: nn.Module) -> dict[str, Tensor | None]:
    """A copy of all gradients, by parameter name."""
    return {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}


def gradients_of(net: LocalNet, images: Tensor, labels: Tensor, scale: float = 1.0) -> dict[str, Tensor | None]:
    """The gradients of one batch, computed on a copy of the network."""
    net = copy.deepcopy(net)
    net.backward(images, labels, scale=scale)
    return gradients(net)


def recomputing_step(net: LocalNet, images: Tensor, labels: Tensor) -> Tensor:
    """The reference: each objective alone, its modules run again from a detached input; returns the losses."""
    inputs, features = [], images
    for module in net.local_modules:
        inputs.append(features.detach())
        features = module(inputs[-1])
    losses = []
    for objective in net.objectives:
        features = inputs[objective.first]
        for module in net.local_modules[objective.first : objective.last + 1]:
            features = module(features)
        loss = objective.loss(features, images, labels)
        if loss.requires_grad:
            (objective.weight * loss).backward()
        losses.append(loss.detach())
    return torch.stack(losses)


def summed_step(net: LocalNet, images: Tensor, labels: Tensor) -> None:
    """The other reference: all objectives in one graph, and one backward pass of their sum."""
    total = torch.zeros(())
    for objective in net.objectives:
        features = images
        for index, module in enumerate(net.local_modules[: objective.last + 1]):
            features = module(features.detach() if index <= objective.first else features)
        total = total + objective.weight * objective.loss(features, images, labels)
    total.backward()


def peak_of(net: LocalNet, step: object, images: Tensor, labels: Tensor) -> int:
    """Peak bytes of activations in a step, gradients of parameters left out."""
    assert callable(step)
    step(images, labels)  # the first step may build what later ones reuse
    net.zero_grad()
    known = [*net.parameters(), *net.buffers(), images, labels]
    with LiveBytes(known=known, parameters=net.parameters()) as live:
        step(images, labels)
    return live.peak_activations


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], what: str) -> None:
    """Assert that tensors have the same names and the same bits."""
    assert actual.keys() == expected.keys(), f"{what}: other names"
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), f"{what}: {name} differs"


def assert_close(
    actual: dict[str, Tensor | None], expected: dict[str, Tensor | None], what: str, *, relative: float, absolute: float
) -> None:
    """Assert that gradients are equal up to rounding: `relative` to the largest entry of each, plus `absolute`."""
    assert actual.keys() == expected.keys(), f"{what}: other names"
    for name, wanted in expected.items():
        gradient = actual[name]
        if wanted is None or gradient is None:
            assert wanted is gradient, f"{what}: {name} has a gradient in one and none in the other"
        else:
            error = float((gradient - wanted).abs().max())
            assert error <= relative * float(wanted.abs().max()) + absolute, f"{what}: {name}: {error}"

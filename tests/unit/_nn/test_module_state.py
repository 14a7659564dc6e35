"""Layers that change state when they run give the same gradients when a step recomputes them."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._nn.module_state import ModuleState
from locallearn._recompute.policy import STORE_ALL, RecomputePlan, RecomputePolicy
from locallearn.models import CifarResNet


class DividesByEma(nn.Module):
    """Divides by a buffer that each forward pass advances."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 4, 1)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convolution(x).relu()
        if self.training:
            with torch.no_grad():
                self.scale.lerp_(y.abs().mean() * 3, 0.5)
        return x + self.last(y / self.scale)


class Replaces(DividesByEma):
    """The same, with a new buffer each time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convolution(x).relu()
        self.scale = self.scale + y.detach().abs().mean()
        return x + self.last(y / self.scale)


class Spectral(nn.Module):
    def __init__(self, norm) -> None:
        super().__init__()
        self.convolution = norm(nn.Conv2d(4, 4, 3, padding=1))
        self.last = norm(nn.Conv2d(4, 4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.last(self.convolution(x).relu())


class Counts(nn.Module):
    """Its scale depends on how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return x + self.last(self.convolution(x).relu()) / self.runs


class Drops(Counts):
    """Stochastic depth by Python's and NumPy's random numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.last(self.convolution(x).relu())
        return x + y * (random.random() + np.random.rand())


BLOCKS = {
    "spectral_norm as a hook": lambda: Spectral(nn.utils.spectral_norm),
    "spectral_norm as a parametrization": lambda: Spectral(nn.utils.parametrizations.spectral_norm),
    "a buffer advanced in place": DividesByEma,
    "a buffer replaced": Replaces,
    "a number that counts runs": Counts,
    "random numbers of Python and NumPy": Drops,
}
RULES = {"BP": ll.BP(), "Checkpoint": ll.Checkpoint(), "Pooling": ll.Pooling(), "HiLo": ll.HiLo(ll.Pooling())}


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("block", BLOCKS)
def test_recomputed_steps_equal_stored_ones_in_every_bit(block, rule, images):
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 4, 3, padding=1), *(BLOCKS[block]() for _ in range(3))]
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * 36, 3)).double()
    results = []
    for lean in (False, True):
        net = ll.localize(copy.deepcopy(model), RULES[rule], input_shape=(3, 6, 6))
        policy = RecomputePolicy(activations=True, blocks=1) if lean else STORE_ALL
        step = net.step(*images)
        segments = len({o.first for o in net.objectives} | {o.last + 1 for o in net.objectives}) - 1
        step.plan = RecomputePlan(segments=(policy,) * segments, objectives=(policy,) * len(net.objectives))
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(1)
        losses = [step.run()]
        step.features = None
        losses.append(net.step(*images).run())  # the state goes on
        results.append([*losses, *(p.grad for p in net.parameters()), *net.buffers(), torch.tensor(random.random())])
    for stored, recomputed in zip(*results, strict=True):
        assert torch.equal(stored, recomputed)


def test_the_first_run_keeps_no_copy_of_what_it_did_not_change():
    block = nn.Sequential(nn.BatchNorm2d(4), DividesByEma())
    state = ModuleState(block)
    with state.first_run():
        block(torch.randn(2, 4, 3, 3))
    assert len(state._buffers) == 1


def test_a_failing_second_run_leaves_the_module_as_it_was():
    block = DividesByEma()
    state = ModuleState(block)
    with state.first_run():
        block(torch.randn(2, 4, 3, 3))
    after = block.scale
    with pytest.raises(RuntimeError, match="channels"), state.another_run():
        block(torch.randn(2, 5, 3, 3))
    assert block.scale is after


@pytest.mark.parametrize("memory", ["fast", "lean"])
@pytest.mark.parametrize("rule", [ll.BP(), ll.Checkpoint(), ll.DGL(), ll.InfoPro()], ids=str)
def test_images_that_require_gradients_change_no_gradient_of_the_network(rule, memory):
    torch.manual_seed(0)
    model = CifarResNet(8, num_classes=3)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    gradients = []
    for requires in (False, True):
        net = ll.localize(copy.deepcopy(model), rule, input_shape=(3, 8, 8), memory=memory)
        given = images.clone().requires_grad_(requires)
        net.backward(given, labels)
        gradients.append([p.grad for p in net.parameters()])
    assert given.grad is not None
    for plain, asked in zip(*gradients, strict=True):
        assert torch.equal(plain, asked)

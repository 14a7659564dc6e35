"""Layers that change state when they run give the same gradients when a step recomputes them."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.support.stateful_blocks import BLOCKS, Block, Buffer, LargeBuffer, ScaledWeight
from torch import Tensor, nn

import locallearn as ll
from locallearn._nn import state_copy
from locallearn._nn.checkpointed import Checkpointed
from locallearn._nn.module_state import ModuleState
from locallearn._recompute.policy import STORE_ALL, RecomputePlan, RecomputePolicy
from locallearn._recompute.tape import CheckpointTape
from locallearn.models import CifarResNet

RECOMPUTE = RecomputePolicy(activations=True, blocks=1)
RULES = {"BP": ll.BP(), "Checkpoint": ll.Checkpoint(), "Pooling": ll.Pooling(), "HiLo": ll.HiLo(ll.Pooling())}


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2])


def taped(block: nn.Module) -> Callable[[Tensor], None]:
    def step(x: Tensor) -> None:
        tape = CheckpointTape(RECOMPUTE.saving)
        tape.call(block, block, x).square().mean().backward()
        tape.unwind()

    return step


def checkpointed(block: nn.Module) -> Callable[[Tensor], None]:
    layer = Checkpointed(block, copy_input=False)
    return lambda x: layer(x).square().mean().backward()


def stored(block: nn.Module) -> Callable[[Tensor], None]:
    return lambda x: block(x).square().mean().backward()


def three_steps(block: nn.Module, way: Callable[[nn.Module], Callable[[Tensor], None]]) -> list[Tensor]:
    """The gradients of each step, and all that the block holds after the last."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    step, results = way(block), []
    for index in range(3):
        step(torch.linspace(index - 1, 2, 72).view(2, 4, 3, 3))
        results += [p.grad.clone() for p in block.parameters() if p.grad is not None]
    draws = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    return [*results, *block.state_dict().values(), torch.tensor(draws)]


@pytest.mark.parametrize("way", [taped, checkpointed])
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_layer_that_runs_again_sees_the_state_of_its_first_run(name, way):
    results = []
    for how in (stored, way):
        torch.manual_seed(0)
        results.append(three_steps(BLOCKS[name](), how))
    for expected, recomputed in zip(*results, strict=True):
        assert torch.equal(expected, recomputed)


@pytest.mark.parametrize("rule", RULES)
def test_recomputed_steps_equal_stored_ones_in_every_bit(rule, images):
    torch.manual_seed(0)
    names = "Buffer", "ScaledWeightByData", "SpectralHook", "GlobalNumbers", "OwnNumbers"
    parts = [nn.Conv2d(3, 4, 3, padding=1), *(BLOCKS[name]() for name in names)]
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * 36, 3)).double()
    results = []
    for policy in (STORE_ALL, RECOMPUTE):
        net = ll.localize(copy.deepcopy(model), RULES[rule], input_shape=(3, 6, 6))
        step = net.step(*images)
        segments = len({o.first for o in net.objectives} | {o.last + 1 for o in net.objectives}) - 1
        step.plan = RecomputePlan(segments=(policy,) * segments, objectives=(policy,) * len(net.objectives))
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(1)
        losses = [step.run()]
        step.features = None
        losses.append(net.step(*images).run())  # the state goes on
        results.append([*losses, *(p.grad for p in net.parameters()), *net.buffers(), torch.tensor(random.random())])
    for stored_value, recomputed in zip(*results, strict=True):
        assert torch.equal(stored_value, recomputed)


def test_weights_that_a_layer_does_not_write_on_are_not_copied():
    block = nn.Sequential(nn.BatchNorm2d(4), LargeBuffer(), nn.Conv2d(4, 4, 3))
    for _ in range(2):
        state = ModuleState(block)
        with state.first_run():
            block(torch.randn(2, 4, 3, 3))
        assert list(state._old) == [block[1].codes]


def test_a_failing_second_run_leaves_the_module_as_it_was():
    block = Buffer()
    state = ModuleState(block)
    with state.first_run():
        block(torch.randn(2, 4, 3, 3))
    after = block.scale
    with pytest.raises(RuntimeError, match="channels"), state.another_run():
        block(torch.randn(2, 5, 3, 3))
    assert block.scale is after


class LateWrite(ScaledWeight):
    """Writes on its weight in its third run alone, through `.data` or not."""

    def begin(self) -> None:
        self.runs, self.by_data = 0, False

    def changed(self, y: Tensor) -> Tensor:
        self.runs += 1
        if self.runs == 3 and self.by_data:
            self.last.weight.data.mul_(0.5)
        return super().changed(y) if self.runs == 3 and not self.by_data else y


@pytest.mark.parametrize("by_data", [False, True])
@pytest.mark.parametrize("way", [taped, checkpointed])
def test_the_first_write_on_a_weight_in_a_later_step_is_told(way, by_data):
    block = LateWrite()
    block.by_data = by_data
    step, x = way(block), torch.randn(2, 4, 3, 3)
    step(x)
    step(x)
    with pytest.raises(ll.LocalLearnError, match=r"^weight of a Conv2d, of shape \(4, 4, 1, 1\), was written"):
        step(x)
    block.runs = 2
    step(x)  # now it is copied


def test_a_write_between_the_two_runs_is_told():
    block, tape = Block(), CheckpointTape(RECOMPUTE.saving)
    output = tape.call(block, block, torch.randn(2, 4, 3, 3))
    with torch.no_grad():
        block.last.weight.mul_(2)
    output.sum().backward()
    with pytest.raises(ll.LocalLearnError, match="was written on after the layer's forward pass"):
        tape.unwind()


def test_an_iterator_that_cannot_be_copied_is_refused():
    block = Block()
    block.scales = (index for index in itertools.count())
    with pytest.raises(ll.LocalLearnError, match="holds a generator, which cannot be copied"):
        taped(block)(torch.randn(2, 4, 3, 3))


def test_a_copy_shares_weights_modules_and_what_has_no_copy():
    import threading

    block = Block()
    block.lock, block.back = threading.Lock(), [block, block.last.weight]
    own = dict(state_copy.StateCopy(state_copy.state_of(block.modules())).state)[block]
    assert own["lock"] is block.lock
    assert own["back"] is not block.back
    assert own["back"][0] is block
    assert own["back"][1] is block.last.weight


@pytest.mark.parametrize("memory", ["fast", "lean", "least"])
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

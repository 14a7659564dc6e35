"""Every policy gives the bits of a step that stores all."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from locallearn._engine.segment import segment_spans
from locallearn._engine.step import Step
from locallearn._objectives.auxiliary import blocks_of
from locallearn._recompute.policy import STORE_ALL, RecomputePlan, RecomputePolicy
from networks import SMALL, batch, local_net, resnet20

ACTIVATIONS, BLOCKS = RecomputePolicy(activations=True), RecomputePolicy(blocks=1)
HALF, BOTH = RecomputePolicy(activations=True, blocks=0.5), RecomputePolicy(activations=True, blocks=1)
PRODUCTS = RecomputePolicy(activations=True, products=True)
OUTPUT, LEAST = RecomputePolicy(output=True), RecomputePolicy(activations=True, products=True, output=True)
ALL = RecomputePolicy(activations=True, products=True, blocks=1)

POLICIES = (ACTIVATIONS, BLOCKS, HALF, BOTH, PRODUCTS, OUTPUT, LEAST, ALL)

RULES = {
    "BP": ll.BP(),
    "Checkpoint": ll.Checkpoint(),
    "DGL": ll.DGL(),
    "AugLocal": ll.AugLocal(depth=4),
    "InfoPro": ll.InfoPro(),
    "PredSim": ll.PredSim(),
    "MAN": ll.MAN(ll.DGL()),
    "HiLo": ll.HiLo(ll.DGL()),
    "MLAAN": ll.MLAAN(),
    "PFF": ll.PFF(ll.InfoPro(), fidelity="paper"),
}


def step(net: ll.LocalNet, policy: RecomputePolicy) -> tuple[torch.Tensor, list[torch.Tensor], dict[str, torch.Tensor]]:
    """Losses, gradients and buffers of a step of a copy in which every part has this policy."""
    net = copy.deepcopy(net)
    segments, objectives = len(segment_spans(net.objectives, net.part)), len(net.objectives)
    plan = RecomputePlan(segments=(policy,) * segments, objectives=(policy,) * objectives)
    images, labels = batch(6)
    torch.manual_seed(0)
    losses = Step(
        modules=net.local_modules, objectives=net.objectives, images=images.double(), labels=labels, plan=plan
    ).run()
    return losses, [p.grad for p in net.parameters()], dict(net.named_buffers())


# Each kind of auxiliary network; a plain and an overlapping list of objectives over modules of several layers.
DEFAULT = {("BP", "all"), ("AugLocal", "all"), ("InfoPro", "all"), ("MAN", "all"), ("MLAAN", "all"), ("PFF", 4)}
DEFAULT |= {("DGL", 4), ("HiLo", 4)}
CASES = [
    pytest.param(rule, modules, marks=() if (rule, modules) in DEFAULT else pytest.mark.slow)
    for rule in RULES
    for modules in ("all", 4)
]


@pytest.mark.parametrize(("rule", "modules"), CASES)
def test_every_policy_gives_the_same_losses_gradients_and_buffers(rule, modules):
    net = local_net(RULES[rule], modules=modules, dtype=torch.float64)
    losses, gradients, buffers = step(net, STORE_ALL)
    for policy in POLICIES:
        found = step(net, policy)
        assert torch.equal(found[0], losses)
        for a, b in zip(found[1], gradients, strict=True):
            assert torch.equal(a, b)
        for name, buffer in buffers.items():
            assert torch.equal(found[2][name], buffer), name


@pytest.mark.parametrize("frozen", [("conv1", "bn1", "layer1.0"), ("layer1.1", "layer2"), ("layer3", "fc")], ids=str)
@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "AugLocal"])
def test_every_policy_leaves_frozen_parts_alone(rule, frozen):
    model = resnet20().double()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    net = ll.localize(model, RULES[rule], modules=4, input_shape=SMALL)
    _, gradients, _ = step(net, STORE_ALL)
    frozen_parameters = [not parameter.requires_grad for parameter in net.parameters()]
    assert [gradient is None for gradient in gradients] == frozen_parameters
    for policy in POLICIES:
        for a, b in zip(step(net, policy)[1], gradients, strict=True):
            assert a is b is None or torch.equal(a, b)


class Noisy(nn.Module):
    """A layer with random numbers, which must be the same when it runs again."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.norm(self.convolution(x)).relu())


@pytest.mark.parametrize("policy", [BOTH, OUTPUT, LEAST, ALL])
def test_random_numbers_are_replayed_and_the_generator_goes_on_unchanged(policy):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *(Noisy() for _ in range(3)), nn.Flatten(), nn.Linear(4 * 14 * 14, 10))
    net = ll.localize(model.double(), ll.DGL(), input_shape=SMALL)
    losses, gradients, _ = step(net, STORE_ALL)
    expected = torch.rand(3)
    found = step(net, policy)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(found[0], losses)
    for a, b in zip(found[1], gradients, strict=True):
        assert torch.equal(a, b)


def test_the_blocks_of_an_auxiliary_network_are_its_residual_blocks():
    net = local_net(ll.AugLocal(depth=4))
    found = blocks_of(net.objectives[0].auxiliary)
    assert len(found) == 3
    assert all(type(block).__name__ == "BasicBlock" for block in found)


def test_layers_that_work_in_place_can_be_recomputed():
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.3)),
        *(nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 12 * 12, 5)),
    )
    found = []
    for rule, memory in ((ll.BP(), "fast"), (ll.Checkpoint(), "fast"), (ll.Checkpoint(), "lean"), (ll.BP(), "least")):
        own = copy.deepcopy(model).double()
        net = ll.localize(own, rule, input_shape=SMALL, memory=memory, layers=[str(i) for i in range(6)])
        torch.manual_seed(1)
        images, labels = batch(6, classes=5)
        losses = net.backward(images.double(), labels)
        found.append([losses, *(p.grad for p in net.parameters()), *net.buffers()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


class Odd(nn.Module):
    """A layer that a second run could get wrong: numbers in a subclass of dict, a sentinel, and another way to eval."""

    class Numbers(dict):
        __getattr__ = dict.get

    DEFAULT = object()

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.scale = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), self.DEFAULT
        self.numbers = self.Numbers(factor=2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.convolution(x)).relu() * self.numbers.factor
        x = x if self.scale is self.DEFAULT else 3 * x
        return F.dropout(x, 0.3) if torch.is_grad_enabled() else x


@pytest.mark.parametrize("policy", [OUTPUT, LEAST])
def test_an_output_that_is_computed_again_comes_from_the_layer_as_it_was(policy):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Odd(), Odd(), nn.Flatten(), nn.Linear(4 * 16 * 16, 10))
    net = ll.localize(model.double(), ll.DGL(), input_shape=SMALL)
    losses, gradients, _ = step(net, STORE_ALL)
    found = step(net, policy)
    assert torch.equal(found[0], losses)
    assert all(map(torch.equal, found[1], gradients))


def test_a_bias_that_moves_before_the_backward_pass_is_not_read_as_it_is_then():
    norm, convolution = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
    with LEAST.saving():
        result = convolution(F.relu(norm(convolution(torch.randn(2, 3, 4, 4)))))
    with torch.no_grad():
        norm.bias.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_a_hook_that_steps_a_weight_is_refused_in_least():
    net = local_net(ll.DGL(), memory="least")
    net.model.conv1.weight.register_post_accumulate_grad_hook(lambda weight: None)
    with pytest.raises(ll.LocalLearnError, match=r"model.conv1.weight has a hook .* step by on_complete, or use"):
        net.backward(*batch())

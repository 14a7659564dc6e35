"""Recomputation: the very bits of stored steps, from fewer bytes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from locallearn._engine import local_net
from locallearn._engine.recompute_plan import plan_recompute
from locallearn._engine.segment import segment_spans
from locallearn._engine.step import Step
from locallearn._objectives.auxiliary import blocks_of
from locallearn._recompute.activations import RecomputeActivations
from locallearn._recompute.policy import STORE_ALL, RecomputePlan, RecomputePolicy
from locallearn._recompute.tape import checkpointing
from locallearn._torch.live_bytes import LiveBytes
from locallearn.cost import peak_memory, step_macs
from networks import SMALL, batch, resnet20

ACTIVATIONS, BLOCKS = RecomputePolicy(activations=True), RecomputePolicy(blocks=1)
HALF, BOTH = RecomputePolicy(activations=True, blocks=0.5), RecomputePolicy(activations=True, blocks=1)

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
    segments, objectives = len(segment_spans(net.objectives)), len(net.objectives)
    plan = RecomputePlan(segments=(policy,) * segments, objectives=(policy,) * objectives)
    images, labels = batch(6)
    torch.manual_seed(0)
    losses = Step(
        modules=net.local_modules, objectives=net.objectives, images=images.double(), labels=labels, plan=plan
    ).run()
    return losses, [p.grad for p in net.parameters()], dict(net.named_buffers())


@pytest.mark.parametrize("modules", ["all", 4])
@pytest.mark.parametrize("rule", RULES)
def test_every_policy_gives_the_same_losses_gradients_and_buffers(rule, modules):
    net = ll.localize(resnet20().double(), RULES[rule], modules=modules, input_shape=SMALL)
    losses, gradients, buffers = step(net, STORE_ALL)
    for policy in (ACTIVATIONS, BLOCKS, HALF, BOTH):
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
    assert any(gradient is None for gradient in gradients)
    for policy in (ACTIVATIONS, BLOCKS, HALF, BOTH):
        for a, b in zip(step(net, policy)[1], gradients, strict=True):
            assert (a is None) == (b is None)
            assert torch.equal(a, b)


def test_what_is_made_again_has_the_same_bits():
    net = ll.localize(resnet20(), ll.AugLocal(depth=4), input_shape=SMALL).double()
    for a, b in zip(step(net, ACTIVATIONS)[1], step(net, STORE_ALL)[1], strict=True):
        assert torch.equal(a, b)


class Noisy(nn.Module):
    """A layer with random numbers, which must be the same when it runs again."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.norm(self.convolution(x)).relu())


def test_random_numbers_are_replayed_and_the_generator_stands_where_it_stood():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *(Noisy() for _ in range(3)), nn.Flatten(), nn.Linear(4 * 14 * 14, 10))
    net = ll.localize(model.double(), ll.DGL(), input_shape=SMALL)
    losses, gradients, _ = step(net, STORE_ALL)
    expected = torch.rand(3)
    found = step(net, BOTH)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(found[0], losses)
    for a, b in zip(found[1], gradients, strict=True):
        assert torch.equal(a, b)


LAYERS = {
    "ReLU": nn.ReLU(),
    "ReLU in place": nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6(),
    "ReLU6 in place": nn.ReLU6(inplace=True),
    "SiLU": nn.SiLU(),
    "SiLU in place": nn.SiLU(inplace=True),
    "GELU": nn.GELU(approximate="tanh"),
    "Hardswish": nn.Hardswish(),
    "Hardswish in place": nn.Hardswish(inplace=True),
    "LeakyReLU": nn.LeakyReLU(0.1),
    "Softplus": nn.Softplus(),
}


def kept_and_gradients(network: nn.Module, context) -> tuple[int, list[torch.Tensor]]:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    known = [*network.parameters(), *network.buffers(), images]
    with LiveBytes(known=known, parameters=network.parameters()) as live:
        with context:
            loss = network(images).square().mean()
        kept = live.now
    gradients = torch.autograd.grad(loss, [images, *network.parameters()])
    return kept, list(gradients)


@pytest.mark.parametrize("activation", LAYERS)
def test_activations_behind_normalisation_are_made_again(activation):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), LAYERS[activation], nn.Conv2d(8, 8, 3, padding=1)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)  # beyond six
    kept, expected = kept_and_gradients(copy.deepcopy(network), torch.enable_grad())
    fewer, found = kept_and_gradients(copy.deepcopy(network), RecomputeActivations())
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    if activation != "Softplus":  # unknown, so kept
        assert fewer <= kept - 2 * 8 * 8 * 8 * 4


def test_an_overwritten_source_is_noticed():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    norm, convolution = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
    with RecomputeActivations():
        source = x * 2
        result = convolution(F.relu(norm(source)))
    source.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_a_part_that_writes_on_its_input_is_noticed_and_not_chosen():
    class Writer(Noisy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.convolution(x.add_(1)))

    writer = Writer()
    leaf = torch.randn(2, 4, 6, 6, requires_grad=True)
    x = leaf * 1
    with checkpointing([writer], RecomputeActivations) as tape:
        loss = writer(x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="written on"):
        tape.unwind()
    assert "forward" not in vars(writer)  # as it was


def test_blocks_are_what_is_run_again():
    net = ll.localize(resnet20(), ll.AugLocal(depth=4), input_shape=SMALL)
    found = blocks_of(net.objectives[0].auxiliary)
    assert len(found) == 3
    assert all(type(block).__name__ == "BasicBlock" for block in found)


# MiB of activations per image at batch 128, every layer a module: in "fast" and in "lean"
PEAKS = {
    ll.DGL(): (0.3752, 0.3752),
    ll.AugLocal(depth=2): (0.5637, 0.4387),
    ll.AugLocal(depth=3): (0.4700, 0.3762),
    ll.AugLocal(depth=4): (0.5637, 0.3762),
    ll.AugLocal(depth=5): (0.7043, 0.4387),
    ll.AugLocal(depth=6): (0.7981, 0.4387),
    ll.PredSim(): (0.4376, 0.3752),
    ll.InfoPro(): (0.5626, 0.4376),
    ll.MAN(ll.DGL()): (0.8126, 0.5004),
    ll.HiLo(ll.DGL()): (0.8751, 0.6251),
    ll.BP(): (1.7981, 0.6887),
    ll.Checkpoint(): (0.7032, 0.6887),
}


@pytest.mark.parametrize("memory", ["fast", "lean"])
@pytest.mark.parametrize("rule", PEAKS, ids=str)
def test_peaks(rule, memory):
    net = ll.localize(ll.models.resnet32(num_classes=10), rule, input_shape=(3, 32, 32), memory=memory)
    found = peak_memory(net, 128).activations / 128 / 2**20
    assert found <= PEAKS[rule][memory == "lean"]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_checkpointing_recomputes_in_lean_what_backpropagation_does(autocast):
    peaks = []
    for rule in (ll.BP(), ll.Checkpoint()):
        net = ll.localize(ll.models.resnet32(num_classes=10), rule, input_shape=(3, 32, 32), memory="lean")
        peaks.append(peak_memory(net, 64, autocast=autocast).total)
    assert peaks[1] == pytest.approx(peaks[0], rel=0.03)


def test_layers_that_write_on_their_inputs_are_checkpointed_and_remade():
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.3)),
        *(nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 12 * 12, 5)),
    )
    found = []
    for rule, memory in ((ll.BP(), "fast"), (ll.Checkpoint(), "fast"), (ll.Checkpoint(), "lean")):
        own = copy.deepcopy(model).double()
        net = ll.localize(own, rule, input_shape=SMALL, memory=memory, layers=[str(i) for i in range(6)])
        torch.manual_seed(1)
        images, labels = batch(6, classes=5)
        losses = net.backward(images.double(), labels)
        found.append([losses, *(p.grad for p in net.parameters()), *net.buffers()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


def test_what_to_compute_again_is_found_once_for_prediction_and_training(monkeypatch):
    found = []
    monkeypatch.setattr(local_net, "plan_recompute", lambda *given: found.append(plan_recompute(*given)) or found[-1])
    net = ll.localize(resnet20(), ll.DGL(), input_shape=SMALL, memory="lean")
    peak_memory(net, 8)
    step_macs(net, 4)
    net.backward(*batch(8))
    assert len(found) == 1


def test_mixed_precision_halves_the_peak():
    net = ll.localize(ll.models.resnet32(num_classes=10), ll.AugLocal(), input_shape=(3, 32, 32), memory="lean")
    half = peak_memory(net, 64, autocast=torch.bfloat16).activations
    assert half <= 0.56 * peak_memory(net, 64).activations


def test_memory_is_fast_or_lean():
    with pytest.raises(ll.LocalLearnError, match="lean"):
        ll.localize(resnet20(), ll.DGL(), input_shape=SMALL, memory="tiny")

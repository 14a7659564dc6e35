"""What is computed again instead of kept: the same gradients from fewer bytes."""

import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from locallearn._engine import local_net
from locallearn._engine.recompute_plan import plan_thrift
from locallearn._engine.segment import stretches
from locallearn._engine.step import run_step
from locallearn._planning import peak_memory as peak_module
from locallearn._recompute import sliced as slicing
from locallearn._recompute.activations import Remade
from locallearn._recompute.policy import KEEP_ALL, Thrift, ThriftPlan
from locallearn._recompute.tape import taping, units
from locallearn._torch.live_bytes import LiveBytes
from locallearn.cost import peak_memory, step_macs
from networks import SMALL, batch, resnet20

REMAKE, SLICED = Thrift(remake=True), Thrift(remake=True, sliced=True)
PLAIN_RERUN, HALF, RERUN = Thrift(rerun=1), replace(SLICED, rerun=0.5), replace(SLICED, rerun=1)

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


def step(net: ll.LocalNet, thrift: Thrift) -> tuple[torch.Tensor, list[torch.Tensor], dict[str, torch.Tensor]]:
    """Losses, gradients and buffers of a step of a copy in which every part has this thrift."""
    net = copy.deepcopy(net)
    plan = ThriftPlan(stretches=(thrift,) * len(stretches(net.objectives)), objectives=(thrift,) * len(net.objectives))
    images, labels = batch(6)
    torch.manual_seed(0)
    losses = run_step(net.local_modules, net.objectives, images.double(), labels, thrift=plan)
    return losses, [p.grad for p in net.parameters()], dict(net.named_buffers())


@pytest.fixture
def tiny_slices(monkeypatch):
    """Even little batches are cut."""
    monkeypatch.setattr(slicing, "_IMAGES", 1)
    monkeypatch.setattr(slicing, "_SLICES", 3)


@pytest.mark.parametrize("modules", ["all", 4])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.usefixtures("tiny_slices")
def test_every_thrift_gives_the_same_losses_gradients_and_buffers(rule, modules):
    net = ll.localize(resnet20().double(), RULES[rule], modules=modules, input_shape=SMALL)
    losses, gradients, buffers = step(net, KEEP_ALL)
    for thrift in (REMAKE, SLICED, PLAIN_RERUN, HALF, RERUN):
        found = step(net, thrift)
        assert torch.equal(found[0], losses)
        for a, b in zip(found[1], gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
        for name, buffer in buffers.items():
            assert torch.equal(found[2][name], buffer), name


@pytest.mark.parametrize("frozen", [("conv1", "bn1", "layer1.0"), ("layer1.1", "layer2"), ("layer3", "fc")], ids=str)
@pytest.mark.parametrize("rule", ["BP", "Checkpoint", "AugLocal"])
def test_every_thrift_leaves_frozen_parts_alone(rule, frozen):
    model = resnet20().double()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    net = ll.localize(model, RULES[rule], modules=4, input_shape=SMALL)
    _, gradients, _ = step(net, KEEP_ALL)
    assert any(gradient is None for gradient in gradients)
    for thrift in (REMAKE, SLICED, PLAIN_RERUN, HALF, RERUN):
        for a, b in zip(step(net, thrift)[1], gradients, strict=True):
            assert (a is None) == (b is None)
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def test_what_is_made_again_has_the_same_bits():
    net = ll.localize(resnet20(), ll.AugLocal(depth=4), input_shape=SMALL).double()
    for a, b in zip(step(net, REMAKE)[1], step(net, KEEP_ALL)[1], strict=True):
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
    losses, gradients, _ = step(net, KEEP_ALL)
    expected = torch.rand(3)
    found = step(net, RERUN)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(found[0], losses)
    for a, b in zip(found[1], gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


ACTIVATIONS = {
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


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_behind_normalisation_are_made_again(activation):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), ACTIVATIONS[activation], nn.Conv2d(8, 8, 3, padding=1)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)  # beyond six
    kept, expected = kept_and_gradients(copy.deepcopy(network), torch.enable_grad())
    fewer, found = kept_and_gradients(copy.deepcopy(network), Remade())
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    if activation != "Softplus":  # unknown, so kept
        assert fewer <= kept - 2 * 8 * 8 * 8 * 4


class Residual(nn.Module):
    """conv - norm - activation - conv - norm, added to the input."""

    def __init__(self, activation: nn.Module, **settings) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, **settings)
        self.norm, self.last = nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False)
        self.activation = activation
        self.behind = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.activation(self.norm(self.convolution(x)))
        out = self.last(self.behind(inner))
        out += x
        return torch.relu(out)


CONVOLUTIONS = {
    "3 x 3": {"kernel_size": 3, "padding": 1},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 4},
    "depthwise, without bias": {"kernel_size": 5, "padding": 2, "groups": 8, "bias": False},
    "dilated": {"kernel_size": 3, "padding": (2, 2), "dilation": 2},
    "same": {"kernel_size": 3, "padding": "same"},
}


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.usefixtures("tiny_slices")
def test_some_images_at_a_time_give_the_same_gradients(convolution, activation):
    def block() -> Residual:
        return Residual(copy.deepcopy(ACTIVATIONS[activation]), **CONVOLUTIONS[convolution])

    head = (nn.Conv2d(8, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    network = nn.Sequential(nn.Conv2d(3, 8, 3), block(), block(), *head, nn.Linear(4 * 5 * 5, 3)).double()
    images = torch.randn(7, 3, 12, 12, dtype=torch.float64)
    target = torch.randn(7, 3, dtype=torch.float64)
    found = []
    for context in (torch.enable_grad(), Remade(sliced=True)):
        own = copy.deepcopy(network)
        leaf = images.clone().requires_grad_()
        with context:
            loss = F.mse_loss(own(leaf), target)
        found.append((loss, *torch.autograd.grad(loss, [leaf, *own.parameters()])))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.usefixtures("tiny_slices")
def test_some_images_at_a_time_lose_nothing_in_mixed_precision():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), *(Residual(nn.ReLU(), kernel_size=3, padding=1) for _ in range(2)))
    images = torch.randn(8, 3, 12, 12)
    exact = torch.autograd.grad(network(images).square().mean(), list(network.parameters()))
    errors = []
    for context in (torch.enable_grad(), Remade(sliced=True)):
        with context, torch.autocast("cpu", torch.bfloat16):
            loss = network(images).square().mean()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        norms = [(a - b).norm() for a, b in zip(gradients, exact, strict=True)]
        errors.append(torch.stack(norms).norm())
    assert errors[1] < 1.1 * errors[0]


@pytest.mark.usefixtures("tiny_slices")
def test_some_images_at_a_time_take_less_memory(monkeypatch):
    monkeypatch.setattr(slicing, "_SLICES", 9)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), *(Residual(nn.ReLU(), kernel_size=3, padding=1) for _ in range(2)))
    peaks = []
    for sliced in (False, True):
        own = copy.deepcopy(network)
        images = torch.randn(9, 3, 12, 12)
        known = [*own.parameters(), *own.buffers(), images]
        with LiveBytes(known=known, parameters=own.parameters()) as live:
            with Remade(sliced=sliced):
                loss = own(images).square().mean()
            loss.backward()
        peaks.append(live.peak_activations)
    assert peaks[1] <= peaks[0] - 0.9 * 9 * 8 * 10 * 10 * 4  # a tensor, but for its slices


def test_an_overwritten_source_is_noticed():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    norm, convolution = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
    with Remade():
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
    with taping([writer], Remade) as tape:
        loss = writer(x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="written on"):
        tape.unwind()
    assert "forward" not in vars(writer)  # as it was


def test_blocks_are_what_is_run_again():
    net = ll.localize(resnet20(), ll.AugLocal(depth=4), input_shape=SMALL)
    found = units(net.objectives[0].auxiliary)
    assert len(found) == 3
    assert all(type(unit).__name__ == "BasicBlock" for unit in found)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_few_slices_are_counted_as_all(monkeypatch, autocast):
    net = ll.localize(resnet20(), ll.AugLocal(depth=3), input_shape=SMALL)
    plan = ThriftPlan(stretches=(SLICED,) * len(net.objectives), objectives=(SLICED,) * len(net.objectives))
    monkeypatch.setattr(net.__class__, "thrift", lambda *_: plan)
    few = peak_memory(net, 64, autocast=autocast)
    monkeypatch.setattr(peak_module, "few_slices", nullcontext)
    assert peak_memory(net, 64, autocast=autocast) == few


# MiB of activations per image at batch 128, every layer a module: in "fast" and in "lean"
PEAKS = {
    ll.DGL(): (0.44, 0.38),
    ll.AugLocal(depth=2): (0.675, 0.44),
    ll.AugLocal(depth=3): (0.522, 0.40),
    ll.AugLocal(depth=4): (0.633, 0.40),
    ll.AugLocal(depth=5): (0.801, 0.40),
    ll.AugLocal(depth=6): (0.918, 0.40),
    ll.PredSim(): (0.504, 0.40),
    ll.InfoPro(): (0.63, 0.43),
    ll.MAN(ll.DGL()): (0.82, 0.48),
    ll.HiLo(ll.DGL()): (0.88, 0.58),
    ll.BP(): (1.80, 0.68),
    ll.Checkpoint(): (0.71, 0.68),
}


@pytest.mark.parametrize("memory", ["fast", "lean"])
@pytest.mark.parametrize("rule", PEAKS, ids=str)
def test_peaks(rule, memory):
    net = ll.localize(ll.models.resnet32(num_classes=10), rule, input_shape=(3, 32, 32), memory=memory)
    found = peak_memory(net, 128).activations / 128 / 2**20
    assert found <= PEAKS[rule][memory == "lean"]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_checkpointing_remakes_in_lean_what_backpropagation_does(autocast):
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
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def test_what_to_compute_again_is_found_once_for_prediction_and_training(monkeypatch):
    found = []
    monkeypatch.setattr(local_net, "plan_thrift", lambda *given: found.append(plan_thrift(*given)) or found[-1])
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

"""Overlapping objectives: the engine against a reference that runs every objective by itself."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._torch.live_bytes import LiveBytes
from locallearn.cost import step_macs
from locallearn.testing.networks import recomputing_step
from networks import SMALL, assert_same, batch, gradients, local_net

SPANS = {
    "HiLo": ll.HiLo(ll.DGL()),
    "HiLo paper": ll.HiLo(ll.DGL(), fidelity="paper"),
    "HiLo of 3": ll.HiLo(ll.Pooling(), span=3),
    "HiLo of 5": ll.HiLo(ll.Pooling(), span=5),
    "HiLo of all": ll.HiLo(ll.Pooling(), span=10),
    "HPFF": ll.HPFF(ll.InfoPro.published("hpff"), fidelity="paper"),
    "MLAAN": ll.MLAAN(ll.DGL()),
    "HPFF of MAN of AugLocal": ll.HPFF(ll.MAN(ll.AugLocal(depth=3)), fidelity="paper"),
}


@dataclass(frozen=True, kw_only=True)
class Spans(ll.Pooling):
    """Any spans."""

    given: tuple[tuple[int, int], ...]

    def spans(self, modules):
        return [ll.Span(first=a, last=b, weight=1.0 + i) for i, (a, b) in enumerate(self.given)]


ODD = {
    "nested": Spans(given=((0, 0), (0, 4), (0, 9), (5, 9))),
    "of unequal width": Spans(given=((0, 2), (1, 1), (1, 5), (3, 9), (4, 6))),
    "one over all and each alone": Spans(given=((0, 9), *((i, i) for i in range(10)))),
    "not in order": Spans(given=((4, 9), (0, 3), (2, 6))),
}
ALL = SPANS | ODD


def double_net(rule: ll.Rule, modules="all") -> ll.LocalNet:
    return local_net(rule, modules=modules, dtype=torch.float64)


def double_batch():
    images, labels = batch()
    return images.double(), labels


def slow_if_wide(rule: str, *more: int | str):
    """Two rules whose auxiliary networks take long; conformance runs both by default."""
    return pytest.param(rule, *more, marks=pytest.mark.slow if rule.startswith("HPFF") else ())


@pytest.mark.filterwarnings("ignore:PFF")
@pytest.mark.parametrize(("rule", "modules"), [*(slow_if_wide(rule, "all") for rule in ALL), ("HiLo", 4), ("MLAAN", 5)])
def test_gradients_are_those_of_every_objective_by_itself_to_rounding(rule, modules):
    net = double_net(ALL[rule], modules)
    reference = copy.deepcopy(net)
    losses = net.backward(*double_batch())
    expected = recomputing_step(reference, *double_batch())
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    found, wanted = gradients(net), gradients(reference)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = gradient.abs().max()
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=float(1e-11 * scale), msg=name)


@pytest.mark.parametrize("rule", ["HiLo", "MLAAN", "nested"])
def test_running_statistics_move_once_a_step(rule):
    net = double_net(ALL[rule])
    plain = copy.deepcopy(net.model)
    net.backward(*double_batch())
    plain(double_batch()[0])
    assert_same(dict(net.model.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize("rule", [slow_if_wide(rule) for rule in ALL])
def test_a_module_is_run_forward_once_a_step(rule):
    net = double_net(ALL[rule])
    counts = [0] * len(net.local_modules)
    for index, module in enumerate(net.local_modules):
        module.register_forward_hook(lambda *_, index=index: counts.__setitem__(index, counts[index] + 1))
    net.backward(*double_batch())
    assert counts == [1] * len(net.local_modules)


def test_objectives_are_in_order_of_their_last_module_narrow_ones_first():
    net = double_net(ODD["of unequal width"])
    assert [(o.first, o.last) for o in net.objectives] == [(1, 1), (0, 2), (1, 5), (4, 6), (3, 9)]


def plain_macs(net: ll.LocalNet, images: torch.Tensor) -> tuple[int, int, int]:
    """MACs of the backbone's layers: forward, and backward to the input and to the parameters."""
    from torch.utils.flop_counter import FlopCounterMode

    forward = inputs = parameters = 0
    features = images
    for module in net.local_modules:
        leaf = features.detach().requires_grad_()
        with FlopCounterMode(display=False) as counter:
            output = module(leaf)
        forward += counter.get_total_flops() // 2
        seed = torch.ones_like(output)
        with FlopCounterMode(display=False) as counter:
            output.backward(seed, inputs=[leaf], retain_graph=True)
        inputs += counter.get_total_flops() // 2
        with FlopCounterMode(display=False) as counter:
            output.backward(seed, inputs=list(module.parameters()))
        parameters += counter.get_total_flops() // 2
        features = output.detach()
    return forward, inputs, parameters


@dataclass(frozen=True, kw_only=True)
class Free(ll.Rule):
    """Heads without a multiplication, so that all that is counted is the backbone's."""

    def auxiliary(self, site):
        return ll.Head(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Tenfold()), site.loss)


class Tenfold(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, x):
        return x[:, :10] * self.scale


@pytest.mark.parametrize("span", [2, 3, 4])
def test_a_step_costs_one_forward_and_at_most_k_backwards(span):
    """k - 1 of the k backwards carry gradients to inputs alone: parameters get the sum over cascades once."""
    modules = 10
    net = local_net(ll.HiLo(Free(), span=span))
    forward, inputs, parameters = plain_macs(net, batch()[0])
    classifier = 2 * 640 * 6 * 3  # two objectives through one linear classifier, forward and backward
    counted = step_macs(net, 6)
    assert counted <= forward + (span - 1) * inputs + parameters + classifier
    assert counted < forward + span * (inputs + parameters)
    assert counted > forward + parameters + (span - 1) * inputs * (modules - span) / modules
    wider = step_macs(local_net(ll.HiLo(Free(), span=span + 1)), 6)
    assert wider - counted <= inputs  # a wider span costs one more backward to inputs, and no forward


def peak(net: ll.LocalNet, images, labels) -> int:
    net.backward(images, labels)
    known = [*net.parameters(), *net.buffers(), images, labels]
    with LiveBytes(known=known, parameters=net.parameters()) as live:
        net.backward(images, labels)
    return live.peak_activations


def one_module_peak(net: ll.LocalNet, index: int, features) -> int:
    """Bytes of one module's forward and backward by itself, its output and the gradient of it included."""
    module = net.local_modules[index]
    features = features.detach().requires_grad_()
    with LiveBytes(known=[*net.parameters(), *net.buffers(), features], parameters=net.parameters()) as live:
        output = module(features)
        output.backward(torch.ones_like(output))
    return live.peak_activations


@pytest.mark.parametrize("span", [2, 3, 5])
def test_the_peak_of_a_span_is_that_of_as_many_modules_and_one_auxiliary_network(span):
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(12)]
    ends = [nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    model = nn.Sequential(ends[0], *blocks, *ends[1:])
    net = ll.localize(model, ll.HiLo(ll.Pooling(), span=span), input_shape=SMALL)
    images, labels = batch(16)
    feature = torch.randn(16, 8, 16, 16)
    auxiliary = feature.numel() * 4  # the gradient of its features; all else of a pooling head is tiny
    assert peak(net, images, labels) <= span * one_module_peak(net, 3, feature) + 1.1 * auxiliary


def test_each_module_is_complete_once():
    net = double_net(SPANS["HiLo"])
    completed = []
    images, labels = double_batch()
    net.backward(images, labels, on_complete=completed.append)
    assert sorted(completed) == list(range(10))
    assert completed[:8] == list(range(8))


class Stateful(nn.Sequential):
    """Layers whose classifier has running statistics and draws random numbers."""

    def __init__(self):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)]
        super().__init__(*layers, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), *head, nn.Linear(8, 10))


def test_a_classifier_that_two_objectives_share_runs_once():
    net = ll.localize(Stateful(), ll.HiLo(ll.Pooling(), independent=0.25), input_shape=SMALL)
    assert net.objectives[-1].auxiliary is net.objectives[-2].auxiliary
    losses = net.backward(*batch())
    assert losses[-1] == losses[-2]
    assert {int(b) for name, b in net.model.named_buffers() if name.endswith("num_batches_tracked")} == {1}


def test_gradients_through_a_shared_classifier_are_shared_by_weight():
    found = {}
    for weight in (0.25, 0.0):
        net = double_net(ll.HiLo(ll.Pooling(), independent=weight, cascade=1.0))
        net.backward(*double_batch())
        found[weight] = gradients(net)
    alone = found[0.0]["model.fc.weight"]
    torch.testing.assert_close(found[0.25]["model.fc.weight"], 1.25 * alone)

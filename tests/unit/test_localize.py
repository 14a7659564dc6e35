"""What `localize` refuses, and limits that must hold for any network."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._torch import private_api
from locallearn.cost import LiveBytes, peak_memory
from locallearn.testing.networks import plain_chain
from locallearn.training import FitSettings
from networks import HIDDEN_BY_TORCH, SMALL, batch, conv_net


def test_cascades_of_weight_0_train_nothing():
    with pytest.raises(ll.LocalLearnError, match="no objective of a weight above 0 trains module 0"):
        ll.localize(ll.models.resnet20(), ll.HiLo(ll.DGL(), cascade=0.0), modules=4, input_shape=(3, 32, 32))


@dataclass(frozen=True, kw_only=True)
class Spans(ll.Rule):
    pairs: tuple[tuple[int, int], ...]

    def spans(self, modules: int) -> list[ll.Span]:
        return [ll.Span(first=first, last=last) for first, last in self.pairs]

    def auxiliary(self, site: ll.Site) -> ll.Auxiliary:
        return ll.DGL().auxiliary(site)


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ((), "none over 3 modules: no objective of a weight above 0 trains module 0"),
        (((0, 0), (2, 2)), "no objective of a weight above 0 trains module 1"),
        (((1, 2),), "no objective of a weight above 0 trains module 0"),
        (((0, 1),), "no objective of a weight above 0 trains module 2"),
        (((0, 3),), "first and last must be modules, from 0 to 2"),
        (((0, 2), (2, 1)), "first and last must be modules"),
        (((-1, 2),), "first and last must be modules"),
    ],
    ids=str,
)
def test_spans_that_leave_modules_out_are_refused(spans, reason):
    with pytest.raises(ll.LocalLearnError, match=f"Spans gives spans .*{reason}"):
        ll.localize(conv_net(), Spans(pairs=spans), input_shape=SMALL)


def test_spans_of_several_modules_that_follow_each_other_work():
    net = ll.localize(conv_net(), Spans(pairs=((0, 1), (2, 2))), input_shape=SMALL)
    assert net.backward(*batch(classes=5)).shape == (2,)
    assert all(p.grad is not None for p in net.parameters())


def pooled(site: ll.Site) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(site.channels, site.classes))


@dataclass(frozen=True, kw_only=True)
class Answering(ll.Rule):
    """Answers what it is told to."""

    partitions: Any = None
    gives: Any = None
    heads: Any = lambda site: ll.Head(pooled(site), site.loss)

    def partition(self, partition):
        return self.partitions or partition

    def spans(self, modules):
        return self.gives or super().spans(modules)

    def auxiliary(self, site):
        return self.heads(site)


class WithoutAnswer(ll.Rule):
    pass


MISTAKES = {
    r"Answering\.auxiliary returned a Sequential: give a new locallearn\.Auxiliary, as": Answering(heads=pooled),
    r"Answering\.auxiliary returned None: give a new locallearn\.Auxiliary": Answering(heads=lambda site: None),
    r"Answering\.auxiliary returned the class Head: give a new": Answering(heads=lambda site: ll.Head),
    r"WithoutAnswer defines no auxiliary\(site\), which its objectives need": WithoutAnswer(),
    r"Answering\.spans returned a tuple: return a list of locallearn\.Span": Answering(gives=[(0, 0)]),
    r"Answering\.partition returned a list: return a locallearn\.Partition": Answering(partitions=[0, 2]),
    r"Answering\.partition gives modules that end with layers \(0, 1\): these must": Answering(
        partitions=ll.Partition((0, 1))
    ),
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_what_a_rule_may_not_answer_is_refused(sentence):
    with pytest.raises(ll.LocalLearnError, match=sentence):
        ll.localize(conv_net(), MISTAKES[sentence], input_shape=SMALL)


@pytest.mark.parametrize("wrapped", [ll.HiLo, ll.MAN, ll.InfoProLoss, ll.MLAAN, ll.Reduced, ll.PFF, ll.HPFF])
def test_what_a_rule_inside_a_wrapper_may_not_answer_is_refused(wrapped):
    with pytest.raises(ll.LocalLearnError, match=r"a Sequential: give a new locallearn\.Auxiliary, as"):
        ll.localize(plain_chain(), wrapped(Answering(heads=pooled)), input_shape=SMALL)


def lazy(site):
    return ll.Head(nn.Sequential(nn.Flatten(), nn.LazyLinear(site.classes)), site.loss)


@pytest.mark.parametrize(
    ("model", "rule", "sentence"),
    [
        (
            nn.Sequential(nn.LazyConv2d(4, 1), nn.Flatten(), nn.LazyLinear(5)),
            ll.DGL(),
            "'0.weight' of Sequential .* run",
        ),
        (conv_net(), Answering(heads=lazy), "'network.1.weight' of Head .* give the sizes that the site tells"),
    ],
)
def test_parameters_without_a_size_are_refused(model, rule, sentence):
    with pytest.raises(ll.LocalLearnError, match=f"parameter {sentence}"):
        ll.localize(model, rule, input_shape=SMALL)


SHARED = nn.Linear(8, 5)


def over_the_next_layer(site):
    return ll.Head(nn.Sequential(site.chain.layers[site.layer + 1], pooled(site)), site.loss)


def with_one_classifier(site):
    return ll.Head(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), SHARED), site.loss)


@pytest.mark.parametrize(
    ("heads", "others"),
    [
        (over_the_next_layer, r"'network\.0\.0\.weight' with the network \('4\.weight'\)"),
        (with_one_classifier, r"'network\.2\.weight' with the auxiliary network after layer '1'"),
    ],
)
def test_auxiliary_networks_that_share_parameters_are_refused(heads, others):
    with pytest.raises(ll.LocalLearnError, match=rf"{others}, so local modules would .* copy\.deepcopy\(layer\)"):
        ll.localize(conv_net(), Answering(heads=heads), input_shape=SMALL)


def test_a_class_instead_of_a_rule_is_refused():
    with pytest.raises(ll.LocalLearnError, match=r"give an instance, as in locallearn\.DGL\(\)"):
        ll.localize(conv_net(), ll.DGL, input_shape=SMALL)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": ll.localize(conv_net(), ll.DGL(), input_shape=SMALL)}, "is localized already: give .* net.model"),
        ({"loss": "mse"}, "loss='mse' is no function"),
        ({"modules": True}, "modules=True: give a number"),
    ],
)
def test_arguments_of_another_kind_are_refused(settings, sentence):
    with pytest.raises(ll.LocalLearnError, match=sentence):
        ll.localize(**{"model": conv_net(), "rule": ll.DGL(), "input_shape": SMALL} | settings)


def test_a_loss_of_several_numbers_is_refused():
    net = ll.localize(conv_net(), ll.DGL(), input_shape=SMALL, loss=nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(ll.LocalLearnError, match=r"over local modules 0 to 0 has shape \(4,\): it must be one number"):
        net.backward(*batch(4, classes=5))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits * self.scale, labels)


def test_a_loss_with_parameters_is_refused():
    with pytest.raises(
        ll.LocalLearnError, match="loss: Scaled has a parameter, 'scale', which nothing would train: put"
    ):
        ll.localize(conv_net(), ll.DGL(), input_shape=SMALL, loss=Scaled())


def test_buffers_of_a_loss_follow_the_network():
    net = ll.localize(conv_net(), ll.DGL(), input_shape=SMALL, loss=nn.CrossEntropyLoss(weight=torch.rand(5)))
    copy.deepcopy(net).double().backward(*batch(classes=5, dtype=torch.float64))
    net.backward(*batch(classes=5))
    assert len(net.state_dict()) == len(net.model.state_dict()) + len(net.auxiliary.state_dict()) + 1


def test_a_chain_of_layers_that_are_not_the_networks_is_refused():
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 5)

        def chain(self) -> ll.Chain:
            head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.fc)
            return ll.Chain(layers={"conv": nn.Conv2d(3, 8, 3)}, classifier=head)

    with pytest.raises(ll.LocalLearnError, match=r"layer 'conv' of Strange\.chain\(\) has parameters that are not"):
        ll.localize(Strange(), ll.DGL(), input_shape=SMALL)


@pytest.mark.parametrize("make", [lambda: ll.AugLocal(fidelity="offical"), lambda: FitSettings(precision="bf-16")])  # pyright: ignore[reportArgumentType]
def test_a_mistyped_choice_is_refused_from_python_too(make):
    with pytest.raises(ll.LocalLearnError, match=r"is not valid; did you mean '(official|bf16)'\?"):
        make()


def wide(layers: int) -> nn.Sequential:
    parts = [part for _ in range(layers) for part in (nn.Linear(512, 512), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *parts, nn.Linear(512, 5))


def test_memory_of_mixed_precision_does_not_grow_with_depth():
    peaks = [
        peak_memory(ll.localize(wide(n), ll.DGL(), input_shape=(2, 16, 16)), 4, autocast=torch.bfloat16).activations
        for n in (3, 9)
    ]
    assert peaks[1] < 1.1 * peaks[0]


def test_peak_memory_is_that_of_training_in_whatever_mode_the_network_is():
    net = ll.localize(conv_net(dropout=0.1), ll.DGL(), input_shape=SMALL)
    assert peak_memory(net, 8) == peak_memory(net.eval(), 8)
    assert not net.training


def test_a_graph_through_recomputed_layers_can_be_used_twice():
    net = ll.localize(conv_net(), ll.Checkpoint(), input_shape=SMALL)
    images, labels = batch(classes=5)
    features = images
    for module in net.local_modules:
        features = module(features)
    loss = net.objectives[0].loss(features, images, labels)
    first, second = (
        torch.autograd.grad(loss, list(net.local_modules[0].parameters()), retain_graph=True) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@HIDDEN_BY_TORCH
def test_every_module_is_compiled_however_many_kinds_there_are():
    torch.compiler.reset()
    parts: list[nn.Module] = []
    for width in range(12):
        parts += [nn.Conv2d(3 + width, 4 + width, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(15, 5))
    net = ll.localize(model, ll.BP(), input_shape=(3, 6, 6))
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    net.compile(backend=count)
    images, labels = batch(2, (3, 6, 6), 5)
    net.step(images, labels).run()
    assert len(graphs) == 13  # twelve local modules and the classifier


def test_live_bytes_counts_what_is_alive():
    with LiveBytes(known=[], parameters=[]) as live:
        a = torch.zeros(100)
        b = a + 1
        del a
        c = b * 2
        del b, c
    assert live.peak_activations == live.peak == 800


def test_fake_copies_take_no_memory_and_leave_the_network_alone():
    net = ll.localize(conv_net(), ll.DGL(), input_shape=SMALL)
    with private_api.fake_mode() as mode:
        copied = private_api.fake_copy(net, mode)
        assert {type(p) for p in copied.parameters()} != {nn.Parameter}
    assert {type(p) for p in net.parameters()} == {nn.Parameter}


def test_pytorchs_log_of_failing_operators_is_silent_inside_of_fake_mode_alone():
    log = logging.getLogger("torch._subclasses.fake_tensor")
    with private_api.fake_mode():
        with pytest.raises(RuntimeError), private_api.fake_mode():
            torch.empty(2, 3) @ torch.empty(2, 3)
        assert log.disabled
    assert not log.disabled

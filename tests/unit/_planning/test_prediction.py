"""Peak memory: recorded numbers, and fake tensors against real ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._engine.stepper import ModuleStepper, Stepper
from locallearn._planning.prediction import bytes_of, example_batch, known_tensors
from locallearn.cost import LiveBytes, cost, measure, peak_memory, predict, step_macs
from locallearn.cost.summary import forward_macs
from locallearn.training import SGD, AdamW
from networks import SMALL, batch, conv_net

MIB = 2**20
OFFICIAL = {ll.DGL(): 0.44} | {
    ll.AugLocal(depth=depth): peak for depth, peak in zip(range(2, 7), (0.75, 0.58, 0.70, 0.89, 1.02), strict=True)
}
"""MiB of live activations per 32 x 32 image at batch 128, of the official code."""
BP = {ll.models.resnet32: 2.39, ll.models.resnet110: 8.08}


def localized(model, rule, size: int = 32) -> ll.LocalNet:
    return ll.localize(model, rule, input_shape=(3, size, size)).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "make",
    [ll.models.resnet32, pytest.param(ll.models.resnet110, marks=pytest.mark.slow)],
    ids=lambda make: make.__name__,
)
def test_peak_of_bp_and_every_rule_is_at_most_the_official_codes(make):
    model = make()
    for rule, peak in {ll.BP(): BP[make], **OFFICIAL}.items():
        ours = peak_memory(localized(model, rule), 128).activations / 128 / MIB
        assert round(ours, 2) <= peak, rule


def test_checkpointing_saves_one_tensor_per_layer_and_the_activations_of_one_layer():
    checkpointed = peak_memory(localized(ll.models.resnet32(), ll.Checkpoint()), 128).activations / 128 / MIB
    assert checkpointed <= 0.71  # 16 layers: 6 x 0.0625 + 5 x 0.03125 + 5 x 0.015625, and half a block


RULES = [ll.BP(), ll.Checkpoint(), ll.DGL(), ll.AugLocal(depth=2), ll.AugLocal(depth=3)]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", [Stepper, ModuleStepper])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__ + str(getattr(rule, "depth", "")))
def test_prediction_agrees_with_real_tensors(rule, kind, autocast):
    net = localized(ll.models.resnet20(), rule, size=16)
    make_stepper = partial(kind, make_optimizer=SGD(lr=0.01).make)
    predicted = peak_memory(net, 32, make_stepper=make_stepper, autocast=autocast)
    real = measure(net, make_stepper(net), *example_batch(net, 32), autocast=autocast)
    assert predicted.activations == pytest.approx(real.activations, rel=0.005)
    assert predicted.total == pytest.approx(real.total, rel=0.005)


@pytest.mark.parametrize("kind", [Stepper, ModuleStepper])
@pytest.mark.parametrize("rule", [ll.BP(), ll.DGL()], ids=["BP", "DGL"])
def test_micro_batches_keep_the_gradients_of_all_modules(rule, kind):
    """Of five, three run; real tensors are counted through all of them."""
    net = localized(ll.models.resnet20(), rule, size=16)
    make_stepper = partial(kind, make_optimizer=SGD(lr=0.01).make)
    predicted = predict(net, 28, accumulate=5, make_stepper=make_stepper)
    stepper = make_stepper(net)
    images, labels = example_batch(net, 28)
    peaks = [real_peak(net, stepper, images, labels, count=5) for _ in range(2)]
    assert predicted.peak.total == pytest.approx(peaks[1], rel=0.005)
    assert predicted.macs == predict(net, 28).macs
    gradients = sum(p.nbytes for p in net.parameters())
    assert predicted.peak.total > peak_memory(net, 6, make_stepper=make_stepper).total + 0.3 * gradients * (
        rule != ll.BP()
    )


def real_peak(net, stepper, images, labels, *, count: int) -> int:
    known = known_tensors(net, stepper, images, labels)
    with LiveBytes(known=known, parameters=net.parameters()) as live:
        for number, (part, own) in enumerate(zip(images.tensor_split(count), labels.tensor_split(count), strict=True)):
            final = number == count - 1
            on_complete = stepper.on_complete if final else None
            net.backward(part, own, scale=len(own) / len(labels), final=final, on_complete=on_complete)
        stepper.finish()
    return bytes_of(known) + live.peak


def test_total_counts_parameters_gradients_state_and_batch():
    net = localized(ll.models.resnet20(), ll.BP(), size=16)
    parameters = sum(p.numel() for p in net.parameters()) * 4
    buffers = sum(b.numel() * b.element_size() for b in net.buffers())
    batch = 64 * (3 * 16 * 16 * 4 + 8)
    sgd = peak_memory(net, 64, make_stepper=partial(Stepper, make_optimizer=SGD(lr=0.1).make))
    adamw = peak_memory(net, 64, make_stepper=partial(Stepper, make_optimizer=AdamW(lr=0.1).make))
    assert sgd.total >= sgd.activations + parameters * 2 + buffers + batch
    assert sgd.total <= sgd.activations + parameters * 3 + buffers + batch
    steps = len(list(net.parameters())) * 4  # AdamW counts its steps for each parameter
    assert adamw.total - sgd.total == parameters + steps


def test_stepping_each_module_at_once_frees_gradients():
    net = localized(ll.models.resnet32(), ll.DGL(), size=16)
    together, alone = (
        peak_memory(net, 8, make_stepper=partial(kind, make_optimizer=SGD(lr=0.1).make)).total
        for kind in (Stepper, ModuleStepper)
    )
    assert together - alone > 0.5 * sum(p.numel() * 4 for p in net.parameters())


def test_bf16_takes_about_half():
    net = localized(ll.models.resnet20(), ll.DGL(), size=16)
    fp32, bf16 = (peak_memory(net, 64, autocast=dtype).activations for dtype in (None, torch.bfloat16))
    assert 0.45 < bf16 / fp32 < 0.6


def test_macs_of_a_whole_step_count_what_runs():
    """By hand for BP on a net of two convolutions: forward, weight gradients, and input gradients but the first's."""
    net = ll.localize(tiny(), ll.BP(), input_shape=(3, 8, 8))
    first, second, linear = 3 * 4 * 9 * 64, 4 * 5 * 9 * 64, 5 * 7
    assert step_macs(net, 2) == 2 * (first * 2 + (second + linear) * 3)
    local = ll.localize(tiny(), ll.DGL(convolutions=0, hidden=0), input_shape=(3, 8, 8))
    head = 4 * 2 * 2 * 7
    assert step_macs(local, 2) == 2 * ((first + second) * 2 + (head + linear) * 3)


def test_macs_of_grouped_convolutions_are_counted_backward_as_forward():
    nn = torch.nn
    grouped = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8))
    net = ll.localize(nn.Sequential(*grouped, nn.Flatten(), nn.Linear(512, 7)), ll.BP(), input_shape=(3, 8, 8))
    assert step_macs(net, 2) == 2 * (3 * 8 * 9 * 64 * 2 + (8 * 9 * 64 + 512 * 7) * 3)


def tiny() -> torch.nn.Sequential:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 7),
    )


def test_cost_changes_neither_network_nor_random_state():
    net = localized(ll.models.resnet20(), ll.AugLocal(depth=2), size=16)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    result = cost(net, batch=16)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None and type(p) is torch.nn.Parameter for p in net.parameters())
    assert net.steps == 0
    assert result.backbone_parameters == 272_474
    assert result.auxiliary_parameters == sum(p.numel() for p in net.auxiliary.parameters())
    assert len(result.module_names) == len(result.module_macs) == len(net.partition)
    net.backward(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3]))  # still trains


class ByClass(ll.Auxiliary):
    """Its loss takes as many steps as there are classes in the batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 4)

    def forward(self, features, images, labels):
        z = self.linear(features.mean((2, 3)))
        return torch.stack([z[labels == label].pow(2).mean() for label in labels.unique()]).sum()


class OfSome(ByClass):
    """Its outputs are as many as there are positive ones."""

    forward = ll.Auxiliary.forward

    def outputs(self, features, images):
        z = self.linear(features.mean((2, 3)))
        return z[z > 0]

    def loss_of(self, outputs, images, labels):
        return outputs.sum()


@dataclass(frozen=True, kw_only=True)
class Of(ll.Rule):
    kind: type

    def auxiliary(self, site):
        return self.kind(site.channels)


@pytest.mark.parametrize("kind", [ByClass, OfSome])
def test_a_loss_whose_shapes_depend_on_values_trains_but_is_not_predicted(kind):
    sentence = "has shapes that depend on the values of tensors .* so its memory cannot be predicted"
    rule = Of(kind=kind)
    lean = ll.localize(conv_net(), rule, input_shape=SMALL, memory="lean")
    with pytest.warns(ll.LocalLearnWarning, match=f"memory=lean recomputes nothing: the loss of .* {sentence}"):
        lean.backward(*batch(classes=5))
    assert all(p.grad is not None for p in lean.parameters())
    with pytest.raises(ll.UnpredictableError, match=f"objective over local modules 0 to 0 {sentence}"):
        peak_memory(lean, 8)
    with pytest.raises(ll.UnpredictableError, match=sentence):
        forward_macs(lean)
    with pytest.raises(ll.UnpredictableError, match=sentence):
        ll.localize(conv_net(), rule, input_shape=SMALL, modules="peak:2")

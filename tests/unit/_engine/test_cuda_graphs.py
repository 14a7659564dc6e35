"""Captured steps: recorded once, replayed, and with the weights of plain steps."""

import copy

import pytest
import torch
from recorded_work import recorded
from torch import nn

import locallearn as ll
from locallearn._engine.cuda_graphs import WARM_UP, CapturedSteps
from locallearn._engine.stepper import ModuleStepper, Stepper
from locallearn.training import SGD, AdamW
from networks import SMALL, batch, local_net

RULES = {
    "BP": ll.BP(),
    "Checkpoint": ll.Checkpoint(),
    "DGL": ll.DGL(),
    "PredSim": ll.PredSim(),
    "InfoPro": ll.InfoPro(),
    "InfoPro, contrastive": ll.InfoPro.original(),
    "AugLocal": ll.AugLocal(depth=3),
    "MAN": ll.MAN(ll.DGL()),
    "HPFF": ll.HPFF(ll.DGL(), fidelity="paper"),
    "HPFF(InfoPro)": ll.HPFF(ll.InfoPro()),
    "MLAAN": ll.MLAAN(ll.DGL()),
}
BATCHES = [batch(4, seed=seed) for seed in range(WARM_UP + 3)]


def plain_steps(net, stepper, batches, autocast=None):
    losses = []
    for number, (images, labels) in enumerate(batches):
        stepper.set_lr(0.1 / (1 + number))
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            losses.append(net.backward(images, labels, on_complete=stepper.on_complete))
        stepper.finish()
    return torch.stack(losses)


def captured_steps(net, stepper, batches, autocast=None):
    steps = CapturedSteps(net, stepper, autocast=autocast, record=recorded)
    losses = []
    for number, (images, labels) in enumerate(batches):
        stepper.set_lr(0.1 / (1 + number))
        losses.append(steps(images, labels))
    return torch.stack(losses)


def assert_same(net, other):
    values = other.state_dict()
    for name, value in net.state_dict().items():
        assert torch.equal(value, values[name]), name
    assert net.steps == other.steps


DEFAULT = {"BP", "Checkpoint", "DGL", "InfoPro, contrastive", "AugLocal", "MAN", "HPFF(InfoPro)", "MLAAN"}


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, marks=() if rule in DEFAULT else pytest.mark.slow) for rule in RULES]
)
def test_weights_losses_and_buffers_are_those_of_plain_steps(rule):
    net = local_net(RULES[rule], modules=6)
    other = copy.deepcopy(net)
    losses = captured_steps(net, Stepper(net, SGD().make, clip_norm=1.0), BATCHES)
    assert torch.equal(losses, plain_steps(other, Stepper(other, SGD().make, clip_norm=1.0), BATCHES))
    assert_same(net, other)


@pytest.mark.parametrize(
    ("memory", "autocast"),
    [
        ("fast", None),
        ("lean", torch.bfloat16),
        pytest.param("fast", torch.bfloat16, marks=pytest.mark.slow),
        pytest.param("lean", None, marks=pytest.mark.slow),
        pytest.param("least", None, marks=pytest.mark.slow),
    ],
)
def test_stepping_module_by_module_mixed_precision_and_lean(autocast, memory):
    net = local_net(ll.AugLocal(depth=3), modules=4, memory=memory)
    other = copy.deepcopy(net)
    losses = captured_steps(net, ModuleStepper(net, SGD().make, clip_module_norm=1.0), BATCHES, autocast)
    stepper = ModuleStepper(other, SGD().make, clip_module_norm=1.0)
    assert torch.equal(losses, plain_steps(other, stepper, BATCHES, autocast))
    assert_same(net, other)


def test_adam_whose_learning_rate_is_rounded_on_the_device():
    net = local_net(ll.DGL(), modules=4, dtype=torch.float64)
    other = copy.deepcopy(net)
    batches = [(images.double(), labels) for images, labels in BATCHES]
    losses = captured_steps(net, Stepper(net, AdamW().make), batches)
    torch.testing.assert_close(losses, plain_steps(other, Stepper(other, AdamW().make), batches), rtol=1e-6, atol=0)


def test_a_smaller_last_batch_is_trained_plainly_and_leaves_the_captured_step_alone():
    net = local_net(ll.DGL(), modules=4)
    other = copy.deepcopy(net)
    batches = [*BATCHES[:2], batch(3), *BATCHES[2:], batch(2), BATCHES[0]]
    losses = captured_steps(net, Stepper(net, SGD().make), batches)
    assert torch.equal(losses, plain_steps(other, Stepper(other, SGD().make), batches))
    assert_same(net, other)


@pytest.mark.parametrize("number", [0, WARM_UP, WARM_UP + 1])
def test_nothing_is_stepped_after_a_nan(number):
    net = local_net(ll.DGL(), modules=4)
    steps = CapturedSteps(net, Stepper(net, SGD().make), record=recorded)
    for images, labels in BATCHES[:number]:
        steps(images, labels)
    before = {name: value.clone() for name, value in net.named_parameters()}
    images, labels = BATCHES[number]
    with pytest.raises(ll.NonFiniteLossError, match=f"step {number + 1}; nothing was stepped"):
        steps(images * torch.inf, labels)
    for name, value in net.named_parameters():
        assert torch.equal(value, before[name]), name


def test_bad_labels_are_refused_before_a_replay():
    net = local_net(ll.DGL(), modules=4)
    steps = CapturedSteps(net, Stepper(net, SGD().make), record=recorded)
    for images, labels in BATCHES:
        steps(images, labels)
    with pytest.raises(ll.LocalLearnError, match="label"):
        steps(BATCHES[0][0], torch.full((4,), 10))


def test_random_numbers_that_would_be_drawn_twice_are_refused():
    def block() -> nn.Module:
        return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5))

    model = nn.Sequential(nn.Conv2d(3, 8, 3), block(), block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    net = ll.localize(copy.deepcopy(model), ll.Checkpoint(), input_shape=SMALL)
    with pytest.raises(ll.LocalLearnError, match="without CUDA graphs"):
        captured_steps(net, Stepper(net, SGD().make), BATCHES)
    net = ll.localize(model, ll.BP(), input_shape=SMALL)
    assert captured_steps(net, Stepper(net, SGD().make), BATCHES).isfinite().all()


def test_the_recording_refuses_a_step_that_waits_for_the_device(monkeypatch):
    net = local_net(ll.DGL(), modules=4)
    run = net.unchecked_backward

    def waits(*given, **named):
        losses = run(*given, **named)
        assert losses.isfinite().all()
        return losses

    monkeypatch.setattr(net, "unchecked_backward", waits)
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        captured_steps(net, Stepper(net, SGD().make), BATCHES)


def test_without_a_gpu_the_sentence_says_so():
    net = local_net(ll.DGL(), modules=4)
    with pytest.raises(ll.LocalLearnError, match="use a CUDA GPU"):
        CapturedSteps(net, Stepper(net, SGD().make))

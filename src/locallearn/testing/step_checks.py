"""Checks of what one step computes. Each raises an AssertionError that says what differs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from locallearn._nn.ema import EmaCopy
from locallearn._nn.outputs import main_output
from locallearn._objectives.auxiliary import defines_after_backward
from locallearn._utils.errors import NonFiniteLossError
from locallearn.models.cifar_resnet import CifarResNet
from locallearn.testing.case import Case
from locallearn.testing.networks import (
    DOUBLE,
    assert_close,
    assert_same,
    batch_for,
    gradients,
    gradients_of,
    recomputing_step,
    sgd,
    train_steps,
)

# Of gradients in float64.
ROUNDING = {"relative": 1e-8, "absolute": 1e-13}


def network_is_left_alone(case: Case) -> None:
    """`localize` changes no weight, buffer, key, output or random state; each tensor is in the state dict once."""
    model, plain = case.make().eval(), case.make().eval()
    state = torch.get_rng_state()
    net = case.localized(model)
    assert torch.equal(state, torch.get_rng_state()), "localize drew from the global random state"
    assert net.model is model, "net.model is another module"
    assert_same(model.state_dict(), plain.state_dict(), "the network after localize")
    images, _ = batch_for(net)
    assert torch.equal(net(images), main_output(plain(images))), "inference gives another output"
    tensors = [tensor.data_ptr() for tensor in net.state_dict().values() if tensor.numel()]
    assert len(tensors) == len(set(tensors)), "a tensor is in the state dict twice"
    train_steps(net.train(), sgd(net), [1])
    assert list(model.state_dict()) == list(plain.state_dict()), "training changed the state dict's keys"


def chain_computes_what_the_network_computes(case: Case) -> None:
    """The local modules and the classifier give the bits of the network, in training and in evaluation."""
    for training in (True, False):
        model = case.make().train(training)
        net = case.net().train(training)
        features, _ = batch_for(net)
        expected = main_output(model(features))
        for module in net.local_modules:
            features = module(features)
        logits = net.objectives[-1].logits(features)
        assert logits is not None, "the last objective has no logits"
        assert torch.equal(logits, expected), f"the chain computes something else, training={training}"


def one_module_is_backpropagation(case: Case) -> None:
    """One local module is plain backpropagation: bit for bit on CIFAR ResNets, up to the order of sums on others."""
    net, plain = case.net(modules=1, dtype=DOUBLE), case.make().to(DOUBLE)
    assert len(net.objectives) == 1, f"{len(net.objectives)} objectives over one module"
    train_steps(net, sgd(net), range(3))
    optimizer = sgd(plain)
    for seed in range(3):
        images, labels = batch_for(net, seed=seed)
        case.loss(main_output(plain(images)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    actual, expected = net.model.state_dict(), plain.state_dict()
    if isinstance(plain, CifarResNet):
        assert_same(actual, expected, "one module against backpropagation")
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-9, atol=1e-11, msg=f"{name} differs")


def gradients_are_isolated(case: Case) -> None:
    """An objective's gradient reaches its modules and its auxiliary network, and nothing else."""
    net = case.net()
    objectives, given = net.objectives, batch_for(net)
    for chosen, objective in enumerate(objectives):
        weights = [o.weight if index == chosen else 0.0 for index, o in enumerate(objectives)]
        net.objectives = tuple(replace(o, weight=weight) for o, weight in zip(objectives, weights, strict=True))
        net.zero_grad()
        net.backward(*given)
        span = net.local_modules[objective.first : objective.last + 1]
        inside = {id(parameter) for part in (*span, objective.auxiliary) for parameter in part.parameters()}
        for name, parameter in net.named_parameters():
            moved = parameter.grad is not None and bool(parameter.grad.any())
            assert not moved or id(parameter) in inside, f"objective {chosen} reaches {name}, outside its span"
        reached = [any(p.grad is not None and bool(p.grad.any()) for p in module.parameters()) for module in span]
        assert len(set(reached)) == 1, f"objective {chosen} reaches some of its modules only: {reached}"


def gradients_are_those_of_each_objective(case: Case) -> None:
    """Losses, gradients and running statistics equal those of each objective alone, in float64."""
    layers = len(case.net().chain)
    for modules in ("all", 4) if layers > 4 else ("all",):
        net = case.net(modules=modules, dtype=DOUBLE)
        reference, model = copy.deepcopy(net), copy.deepcopy(net.model)
        given = batch_for(net)
        losses = net.backward(*given)
        torch.testing.assert_close(losses, recomputing_step(reference, *given), rtol=1e-11, atol=1e-11)
        actual = gradients(net)
        main_output(model(given[0])).sum().backward()
        unused = {f"model.{name}" for name, parameter in model.named_parameters() if parameter.grad is None}
        trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad} - unused
        missing = sorted(name for name in trained if actual[name] is None)
        assert not missing, f"{missing} have no gradient"
        assert_close(actual, gradients(reference), "gradients", **ROUNDING)
        assert_same(dict(net.model.named_buffers()), dict(model.named_buffers()), "running statistics")


def accumulation_adds_up(case: Case) -> None:
    """Gradients of micro-batches add up; EMA copies move in the last micro-batch alone."""
    net = case.net(dtype=DOUBLE)
    first, second = batch_for(net, 6, seed=1), batch_for(net, 4, seed=2)
    accumulated = copy.deepcopy(net)
    accumulated.backward(*first, final=False)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name, buffer in accumulated.named_buffers():
        still = name.endswith(statistics) or torch.equal(buffer, net.get_buffer(name))
        assert still, f"{name} moved before the last micro-batch"
    one, two = gradients_of(net, *first), gradients_of(net, *second)
    pairs = zip(one.items(), two.values(), strict=True)
    expected = {name: None if a is None or b is None else a + b for (name, a), b in pairs}
    accumulated.backward(*second)
    assert_close(gradients(accumulated), expected, "accumulated gradients", **ROUNDING)


def auxiliary_networks_are_told_of_each_step(case: Case) -> None:
    """Each `after_backward`, and each update of an EMA copy, happens once in a step."""
    net = case.net()
    calls: dict[str, int] = {}
    for name, part in net.auxiliary.named_modules():
        if isinstance(part, EmaCopy) or defines_after_backward(part):
            calls[name] = 0
            method = "update" if isinstance(part, EmaCopy) else "after_backward"
            setattr(part, method, partial(_count, calls, name, getattr(part, method)))
    net.backward(*batch_for(net))
    for name, count in calls.items():
        assert count == 1, f"{name} is told {count} times of a step: does an after_backward around it call super()?"


def _count(calls: dict[str, int], name: str, call: Callable[[], None]) -> None:
    calls[name] += 1
    call()


def scale_multiplies_gradients(case: Case) -> None:
    """`scale` multiplies every gradient and no loss."""
    net = case.net()
    given = batch_for(net)
    plain, scaled = gradients_of(net, *given), gradients_of(net, *given, scale=4.0)
    expected = {name: None if gradient is None else gradient * 4 for name, gradient in plain.items()}
    assert_close(scaled, expected, "scaled gradients", relative=0.0, absolute=0.0)
    assert torch.equal(copy.deepcopy(net).backward(*given, scale=4.0), net.backward(*given)), "losses are scaled"


def frozen_parts_stay(case: Case) -> None:
    """Frozen parameters and frozen modules get no gradient; the gradients of all others do not change."""
    net = case.net(dtype=DOUBLE)
    given = batch_for(net)
    expected = gradients_of(net, *given)
    net.local_modules[0].requires_grad_(False)
    net.local_modules[-1].requires_grad_(False)
    next(net.local_modules[1].parameters()).requires_grad_(False)
    frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    actual = gradients_of(net, *given)
    assert all(actual[name] is None for name in frozen), "a frozen parameter has a gradient"
    rest = actual.keys() - frozen
    pick = {name: actual[name] for name in rest}, {name: expected[name] for name in rest}
    assert_close(*pick, "gradients beside frozen parts", **ROUNDING)


def nan_is_named_and_nothing_is_stepped(case: Case) -> None:
    """A NaN raises an error that names module, objective and step, before any parameter is stepped."""
    net = case.net()
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    images, labels = batch_for(net)
    images[0, 0, 0, 0] = float("nan")
    try:
        net.backward(images, labels)
    except NonFiniteLossError as error:
        assert error.step == 1, f"step {error.step} is named"
        assert net.objectives[error.objective].last == error.module, "objective and module do not fit"
        followers = {id(p) for part in net.modules() if isinstance(part, EmaCopy) for p in part.parameters()}
        for name, parameter in net.named_parameters():
            assert id(parameter) in followers or torch.equal(parameter, before[name]), f"{name} was stepped"
    else:
        raise AssertionError("a NaN in the images went unnoticed")

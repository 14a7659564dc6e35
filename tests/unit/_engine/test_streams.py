"""Modules on several streams: nothing comes too early, and the same bits."""

import copy
from collections import deque

import pytest
import torch
from races import Races

import locallearn as ll
from locallearn._engine.step import Step, independent
from locallearn._engine.stepper import ModuleStepper, Stepper
from locallearn._engine.streams import IN_ORDER
from locallearn._recompute.policy import RecomputePlan, RecomputePolicy
from locallearn.training import SGD
from networks import SMALL, batch, resnet20

RULES = {
    "DGL": ll.DGL(),
    "PredSim": ll.PredSim(),
    "InfoPro": ll.InfoPro(),
    "AugLocal": ll.AugLocal(depth=3),
    "MAN": ll.MAN(ll.DGL()),
    "LAM": ll.LAM(ll.DGL()),
    "PFF": ll.PFF(ll.DGL(), fidelity="paper"),
}
LEAN = RecomputePolicy(activations=True, blocks=1)


def training_steps(net, streams, stepper, *, plan=None, steps=2):
    """A few steps; their losses."""
    images, labels = batch(4)
    losses = []
    for _ in range(steps):
        step = Step(
            modules=net.local_modules,
            objectives=net.objectives,
            images=images,
            labels=labels,
            on_complete=stepper.on_complete,
            plan=plan,
            streams=streams,
        )
        losses.append(step.run())
        stepper.finish()
    return torch.stack(losses)


def made(rule):
    net = ll.localize(resnet20(), RULES[rule], input_shape=SMALL)
    return net, RecomputePlan(segments=(LEAN,) * len(net.partition), objectives=(LEAN,) * len(net.objectives))


@pytest.mark.parametrize(
    ("count", "lean", "stepping"), [(2, False, Stepper), (3, True, Stepper), (2, True, ModuleStepper)]
)
@pytest.mark.parametrize("rule", RULES)
def test_nothing_comes_too_early_and_the_bits_are_those_in_order(rule, count, lean, stepping):
    net, plan = made(rule)
    assert independent(net.local_modules, net.objectives)
    other, plan = copy.deepcopy(net), plan if lean else None
    with Races(count) as races:
        losses = training_steps(net, races.overlapped(), stepping(net, SGD(lr=0.1).make), plan=plan)
    assert races.found == []
    assert races.overlaps > 100 or stepping is ModuleStepper
    assert torch.equal(losses, training_steps(other, IN_ORDER, stepping(other, SGD(lr=0.1).make), plan=plan))
    for name, value in other.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name


def memory_given_away_early(streams):
    streams._held = deque(maxlen=2)


def features_not_waited_for(streams):
    streams.passed_on = streams._held.append


def sources_stepped_before_their_copies_move(streams):
    streams.wait_for_earlier = lambda: None


@pytest.mark.parametrize(
    ("spoil", "rule", "stepping", "what"),
    [
        (memory_given_away_early, "DGL", Stepper, "freed memory"),
        (features_not_waited_for, "DGL", Stepper, "a tensor"),
        (sources_stepped_before_their_copies_move, "MAN", ModuleStepper, "a tensor"),
    ],
)
def test_the_watcher_finds_what_comes_too_early(spoil, rule, stepping, what):
    net, _ = made(rule)
    with Races(2) as races:
        streams = races.overlapped()
        spoil(streams)
        training_steps(net, streams, stepping(net, SGD(lr=0.1).make))
    assert any(what in sentence for sentence in races.found)


@pytest.mark.parametrize("rule", [ll.HiLo(ll.DGL()), ll.MLAAN(), ll.HPFF(ll.InfoPro())])
def test_cascades_are_not_independent(rule):
    net = ll.localize(resnet20(), rule, input_shape=SMALL)
    assert not independent(net.local_modules, net.objectives)


def test_networks_that_share_parameters_are_not_independent():
    net, _ = made("DGL")
    first, second = net.objectives[:2]
    second.auxiliary.extra = next(first.auxiliary.children())
    assert not independent(net.local_modules, net.objectives)

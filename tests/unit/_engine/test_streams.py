"""Modules on several streams: no races, and the bits of a step in order."""

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
from networks import batch, local_net

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


def net_and_plan(rule):
    net = local_net(RULES[rule], modules=6)
    return net, RecomputePlan(segments=(LEAN,) * len(net.partition), objectives=(LEAN,) * len(net.objectives))


STEPS = ((2, False, Stepper), (3, True, Stepper), (2, True, ModuleStepper))
CASES = [
    pytest.param(rule, *step, marks=() if rule in ("DGL", "MAN") or step == STEPS[1] else pytest.mark.slow)
    for rule in RULES
    for step in STEPS
]


@pytest.mark.parametrize(("rule", "count", "lean", "stepping"), CASES)
def test_overlapped_streams_have_no_races_and_give_the_same_bits(rule, count, lean, stepping):
    net, plan = net_and_plan(rule)
    assert independent(net.local_modules, net.objectives)
    other, plan = copy.deepcopy(net), plan if lean else None
    with Races(count) as races:
        losses = training_steps(net, races.overlapped(), stepping(net, SGD(lr=0.1).make), plan=plan)
    assert races.found == []
    assert races.overlaps > 100 or stepping is ModuleStepper
    assert torch.equal(losses, training_steps(other, IN_ORDER, stepping(other, SGD(lr=0.1).make), plan=plan))
    for name, value in other.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name


def free_features_early(streams):
    streams._held = deque(maxlen=2)


def skip_the_wait_for_features(streams):
    streams.passed_on = streams._held.append


def skip_the_wait_for_ema_copies(streams):
    streams.wait_for_earlier = lambda: None


@pytest.mark.parametrize(
    ("spoil", "rule", "stepping", "what"),
    [
        (free_features_early, "DGL", Stepper, "freed memory"),
        (skip_the_wait_for_features, "DGL", Stepper, "a tensor"),
        (skip_the_wait_for_ema_copies, "MAN", ModuleStepper, "a tensor"),
    ],
)
def test_the_detector_reports_each_kind_of_race(spoil, rule, stepping, what):
    net, _ = net_and_plan(rule)
    with Races(2) as races:
        streams = races.overlapped()
        spoil(streams)
        training_steps(net, streams, stepping(net, SGD(lr=0.1).make))
    assert any(what in sentence for sentence in races.found)


@pytest.mark.parametrize("rule", [ll.HiLo(ll.DGL()), ll.MLAAN(), ll.HPFF(ll.InfoPro())])
def test_cascades_are_not_independent(rule):
    net = local_net(rule)
    assert not independent(net.local_modules, net.objectives)


def test_networks_that_share_parameters_are_not_independent():
    net, _ = net_and_plan("DGL")
    first, second = net.objectives[:2]
    second.auxiliary.extra = next(first.auxiliary.children())
    assert not independent(net.local_modules, net.objectives)

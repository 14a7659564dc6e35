"""One training step over time."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest

import locallearn as ll
from locallearn.cost import Timeline, peak_memory, timeline
from networks import SMALL, resnet20


def recorded(rule: ll.Rule, *, memory="fast") -> tuple[Timeline, ll.LocalNet]:
    net = ll.localize(resnet20(), rule, modules=3, memory=memory, input_shape=SMALL)
    return timeline(net, 16), net


def order(found: Timeline) -> str:
    return " ".join(f"{phase.activity[0]}{phase.module}" for phase in found.phases)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ll.BP(), "f0 f1 f2 a2 b2 b1 b0"),
        (ll.DGL(), "f0 a0 b0 f1 a1 b1 f2 a2 b2"),
        (ll.HiLo(ll.DGL()), "f0 f1 a1 b1 b0 f2 a2 b2 b1"),
    ],
    ids=str,
)
def test_modules_run_in_the_order_of_the_rule(rule, expected):
    found, net = recorded(rule)
    assert order(found) == expected
    assert found.modules == 3
    assert found.spans == tuple((o.first, o.last) for o in net.objectives)


@pytest.mark.parametrize(("rule", "memory"), [(ll.Checkpoint(), "fast"), (ll.BP(), "lean")], ids=str)
def test_recomputation_is_a_phase_of_the_backward_pass(rule, memory):
    found, _ = recorded(rule, memory=memory)
    kinds = [activity for activity, _ in groupby(phase.activity for phase in found.phases)]
    assert kinds[:2] == ["forward", "auxiliary"]
    assert set(kinds[2:]) == {"recompute", "backward"}
    assert kinds[-1] == "backward"


@pytest.mark.parametrize("rule", [ll.BP(), ll.AugLocal(depth=2)], ids=str)
def test_the_highest_point_is_the_peak_and_phases_have_no_gaps(rule):
    found, net = recorded(rule)
    assert max(found.activations) == peak_memory(net, 16).activations
    assert found.phases[0].start == 0
    assert found.phases[-1].end == found.seconds[-1]
    assert all(before.end == after.start for before, after in pairwise(found.phases))
    assert list(found.seconds) == sorted(found.seconds)


def test_backpropagation_is_a_triangle_and_local_learning_a_saw():
    bp, dgl = (recorded(rule)[0] for rule in (ll.BP(), ll.DGL()))
    top = bp.seconds[bp.activations.index(max(bp.activations))]
    turn = next(phase for phase in bp.phases if phase.activity == "auxiliary")
    assert turn.start * 0.9 <= top <= turn.end * 1.3
    assert max(dgl.activations) < 0.7 * max(bp.activations)
    ends = [phase.end for phase in dgl.phases if phase.activity == "backward"]
    alive = [dgl.activations[dgl.seconds.index(end)] for end in ends]
    assert max(alive) < 0.5 * max(dgl.activations)

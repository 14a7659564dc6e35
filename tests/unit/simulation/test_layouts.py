"""Layouts of hand-made networks, whose times and bytes have closed forms."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

import locallearn as ll
from locallearn.simulation import (
    CopiedLayer,
    Link,
    Load,
    ModuleLoad,
    PhaseLoad,
    data_parallel,
    module_parallel,
    pipeline,
    simulate,
)

FREE = Link(bytes_per_second=inf)


def phase(activity, module, seconds, change=0.0):
    return PhaseLoad(activity=activity, module=module, fixed=0.0, per_image=seconds, peak=max(0, change), change=change)


def bp(modules: int, **module) -> Load:
    """Equal modules: forward a second and backward two for each image, 10 bytes saved; no loss to speak of."""
    forward = [phase("forward", m, 1.0, 10.0) for m in range(modules)]
    backward = [phase("backward", m, 2.0, -10.0) for m in reversed(range(modules))]
    return load(modules, (*forward, *backward), **module)


def local(modules: int, auxiliary: float, **module) -> Load:
    """Equal modules with an auxiliary network each."""
    phases = []
    for m in range(modules):
        phases += [phase("forward", m, 1.0), phase("auxiliary", m, auxiliary), phase("backward", m, 1.0)]
    return load(modules, tuple(phases), **module)


def load(modules: int, phases: tuple, **module) -> Load:
    each = tuple(ModuleLoad(name=f"{m}", **module) for m in range(modules))
    return Load(images=8, image=0.0, phases=phases, modules=each)


@pytest.mark.parametrize("order", ["GPipe", "1F1B"])
@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 4), (4, 4), (4, 16), (8, 8)])
def test_the_bubble_of_a_pipeline(order, stages, micro_batches):
    m, p = micro_batches, stages
    found = pipeline(order, bp(8), FREE, stages=p, copies=1, batch=m, micro_batches=m)
    assert found.bubble == pytest.approx((p - 1) / (m + p - 1))
    assert found.seconds == pytest.approx((m + p - 1) * 3 * 8 / p)


@pytest.mark.parametrize(("order", "held"), [("GPipe", 16), ("1F1B", 4)])
def test_gpipe_holds_all_micro_batches_and_1f1b_as_many_as_stages(order, held):
    found = pipeline(order, bp(4), FREE, stages=4, copies=1, batch=16, micro_batches=16)
    assert found.memory == held * 10


def test_a_pipeline_sends_features_and_as_many_gradients():
    found = pipeline("1F1B", bp(4, output=3.0), FREE, stages=4, copies=1, batch=16, micro_batches=8)
    assert found.traffic == 16 * 3 * 2  # a device in the middle: features onward, gradients back
    assert module_parallel(local(4, 2.0, output=3.0), FREE, stages=4, copies=1, batch=16).traffic == 16 * 3


def test_gradients_travel_in_a_ring_while_others_are_computed():
    network = bp(3, gradients=600.0)
    n, link = 4, Link(bytes_per_second=1000.0, latency=0.01)
    found = data_parallel("", network, link, devices=n, batch=n)
    assert found.traffic == pytest.approx(2 * (n - 1) / n * 1800)
    all_reduce = 2 * (n - 1) * (0.01 + 600 / n / 1000)
    assert all_reduce < 2  # less than the backward pass of a module: that of the first module alone is not hidden
    assert found.seconds == pytest.approx(9 + all_reduce)
    in_one_bucket = data_parallel("", network, link, devices=n, batch=n, bucket=1e9)
    assert in_one_bucket.seconds == pytest.approx(9 + 2 * (n - 1) * (0.01 + 1800 / n / 1000))


@pytest.mark.parametrize(("layers", "depth"), [(8, 2), (8, 4), (5, 1)])
def test_auglocal_a1_time_on_a_device_for_each_layer_is_that_of_a_layer_with_its_auxiliary_network(layers, depth):
    """Appendix A.1: with t_f = t_b, a step takes (d + 1)(t_f + t_b), and BP's takes (L + 1)(t_f + t_b)."""
    parallel = module_parallel(local(layers, 2.0 * depth), FREE, stages=layers, copies=1, batch=1)
    one_device = replace(bp(layers), phases=tuple(replace(p, per_image=1.0) for p in bp(layers).phases))
    step = data_parallel("", one_device, FREE, devices=1, batch=1).seconds
    assert parallel.seconds / step == pytest.approx((depth + 1) / layers)
    assert parallel.bubble == pytest.approx(0)


def test_the_slowest_device_sets_the_time_and_modules_are_divided_evenly():
    uneven = load(4, tuple(phase("forward", m, seconds) for m, seconds in enumerate((3.0, 1.0, 1.0, 1.0))))
    found = module_parallel(uneven, FREE, stages=2, copies=1, batch=1)
    assert found.seconds == pytest.approx(3)
    found = module_parallel(uneven, FREE, stages=4, copies=1, batch=1)
    assert found.seconds == pytest.approx(3)
    assert found.bubble == pytest.approx(0.5)


def test_a_slow_link_sets_the_time():
    found = module_parallel(local(4, 2.0, output=100.0), Link(bytes_per_second=10.0), stages=4, copies=1, batch=1)
    assert found.seconds == pytest.approx(10)
    assert found.link_share == pytest.approx(1)


@pytest.mark.parametrize(("ahead", "waits"), [(1, False), (2, False), (3, True)])
def test_ema_copies_wait_for_weights_of_devices_far_ahead(ahead, waits):
    """The copy before step t follows the weights after step t - 2, which a device n ahead has n slots later."""
    network = local(4, 0.0)
    network = replace(network, phases=tuple(p for p in network.phases if p.activity != "forward"))
    phases = [p for m in range(4) for p in (phase("forward", m, 4.0), phase("auxiliary", m, 0.0))]
    network = replace(network, phases=tuple(phases), copied=(CopiedLayer(by=0, of=ahead, size=1.0),))
    found = module_parallel(network, FREE, stages=4, copies=1, batch=1)
    assert found.seconds > 4.5 if waits else found.seconds == pytest.approx(4)


def test_the_gradient_of_an_objective_over_two_devices_is_waited_for():
    phases = (
        phase("forward", 0, 1.0),
        phase("forward", 1, 1.0),
        phase("auxiliary", 1, 2.0),
        phase("backward", 1, 1.0),
        phase("backward", 0, 1.0),
    )
    found = module_parallel(load(2, phases, output=5.0), FREE, stages=2, copies=1, batch=1)
    assert found.seconds == pytest.approx(6)  # nothing overlaps
    assert found.traffic == 5


def test_micro_batches_of_module_parallel_take_less_memory_and_no_more_time():
    network = local(4, 2.0)
    phases = tuple(replace(p, peak=10.0, change=0.0) for p in network.phases)
    network = replace(network, phases=phases)
    whole, parts = (
        module_parallel(network, FREE, stages=4, copies=1, batch=16, micro_batches=count) for count in (1, 4)
    )
    assert (whole.seconds, parts.seconds) == (pytest.approx(16 * 4), pytest.approx(16 * 4))
    assert (whole.memory, parts.memory) == (160, 40)


def test_many_devices_sum_small_gradients_by_a_tree():
    link = Link(bytes_per_second=1000.0, latency=0.1)
    seconds, sent = link.all_reduce(8.0, 1024)
    assert (seconds, sent) == (pytest.approx(2 * 10 * 0.1 + 0.016), 16)
    assert link.all_reduce(8e6, 4) == (pytest.approx(6 * (0.1 + 2000)), 12e6)
    assert link.all_reduce(8.0, 1) == (0, 0)


def test_copies_share_gradients_of_the_same_modules():
    link = Link(bytes_per_second=100.0)
    found = module_parallel(local(2, 1.0, gradients=50.0), link, stages=2, copies=2, batch=2)
    assert found.seconds == pytest.approx(3 + 0.5)  # a device has one module, and waits for its sum
    assert found.traffic == 50
    piped = pipeline("GPipe", bp(2, gradients=50.0), link, stages=2, copies=2, batch=4, micro_batches=2)
    assert piped.seconds == pytest.approx(9 + 0.5)


def test_all_layouts_side_by_side_say_what_bounds_them():
    network = local(4, 2.0, output=4.0, gradients=400.0, state=120.0)
    found = simulate(bp(4, gradients=40.0), network, devices=8, link=Link(bytes_per_second=10.0), batch=16)
    assert [one.layout for one in found.outcomes] == [
        "BP, data parallel",
        "BP, pipeline GPipe",
        "BP, pipeline 1F1B",
        "local, data parallel",
        "local, module parallel",
    ]
    assert [(one.stages, one.copies) for one in found.outcomes] == [(1, 8), (4, 2), (4, 2), (1, 8), (4, 2)]
    text = " ".join(found.limits)
    assert "8 devices, 4 modules of the local rule: they make 4 stages in 2 copies." in text
    assert "takes 25.0% of a step, so a copy is at most 4.0 times as fast" in text
    assert "Data parallel leaves 2 images" in text
    assert "module parallel: devices are idle 56% of the time; they would be 0% with links that cost nothing." in text
    last = found.outcomes[-1]
    assert (last.seconds, last.memory) == (8 * 4 + 40, 120 + 8 * 4)  # the sum over copies is not hidden


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"devices": 0}, "devices=0 must be at least 1"),
        ({"micro_batches": 0}, "micro_batches=0 must be at least 1"),
        ({"batch": 3}, "a batch of 3 images leaves some of 4 devices without one"),
        ({"stages": 3}, "stages=3: give a divisor of 4 devices that is at most 4"),
        ({"stages": 8, "devices": 8}, "stages=8: give a divisor"),
    ],
)
def test_impossible_numbers_are_refused(settings, sentence):
    with pytest.raises(ll.LocalLearnError, match=sentence):
        simulate(bp(4), local(4, 1.0), **({"devices": 4, "link": FREE, "batch": 8} | settings))

"""The load of real networks' steps."""

from __future__ import annotations

from math import inf

import pytest

import locallearn as ll
from locallearn.cost import bytes_by_module, predict
from locallearn.simulation import Link, data_parallel, load_of, measured_times, module_parallel
from networks import SMALL, conv_net

FREE = Link(bytes_per_second=inf)


@pytest.mark.parametrize("rule", [ll.BP(), ll.HiLo(ll.DGL())], ids=str)
def test_on_one_device_time_and_memory_are_those_of_cost(rule):
    net = ll.localize(conv_net(), rule, modules=3, input_shape=SMALL)
    load, predicted = load_of(net, 16), predict(net, 16)
    found = data_parallel("", load, FREE, devices=1, batch=16)
    assert found.seconds == pytest.approx(predicted.seconds, rel=0.01)
    trained = sum(p.nbytes for p in net.parameters())
    state = 3 * trained + sum(buffer.nbytes for buffer in net.buffers())  # gradients and momentum
    assert sum(module.state for module in load.modules) == state
    assert found.memory == pytest.approx(state + 16 * load.image + predicted.peak.activations, rel=0.01)
    smaller = data_parallel("", load, FREE, devices=1, batch=8)
    assert smaller.seconds == pytest.approx(predict(net, 8).seconds, rel=0.01)


def test_two_devices_hold_their_own_modules_alone():
    net = ll.localize(conv_net(), ll.DGL(), modules=2, input_shape=SMALL)
    load = load_of(net, 16)
    found = module_parallel(load, FREE, stages=2, copies=1, batch=16)
    rows = bytes_by_module(net, 16)
    received = 3 * 16 * load.modules[0].output  # two batches wait, one is trained on
    limits = [row.peak + module.state for row, module in zip(rows, load.modules, strict=True)]
    assert 0.99 * max(limits) <= found.memory <= max(limits) + received + 16 * load.image
    assert found.seconds == pytest.approx(max(load.module_seconds(16)))
    assert found.traffic == 16 * load.modules[0].output


def test_ema_copies_name_the_modules_whose_weights_travel():
    net = ll.localize(conv_net(), ll.MAN(ll.DGL()), modules=3, input_shape=SMALL)
    found = load_of(net, 4).copied
    assert [(one.by, one.of) for one in found] == [(0, 1), (1, 2)]
    assert [one.size for one in found] == [
        sum(p.nbytes for p in net.local_modules[module].layers[0].parameters()) for module in (1, 2)
    ]


def test_measured_times_replace_predicted_ones():
    net = ll.localize(conv_net(), ll.DGL(), modules=2, input_shape=SMALL)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    load, times = load_of(net, 4), measured_times(net, 4, steps=1)
    assert times.keys() == load.times().keys()
    measured = load.with_times(times)
    assert measured.times() == pytest.approx(times)
    assert sum(load.on_faster_device(2).times().values()) == pytest.approx(sum(load.times().values()) / 2)
    assert all((value == before[name]).all() for name, value in net.state_dict().items())
    assert net.steps == 0


def test_too_few_images_are_refused():
    net = ll.localize(conv_net(), ll.BP(), modules=2, input_shape=SMALL)
    with pytest.raises(ll.LocalLearnError, match="at least 4 images"):
        load_of(net, 3)

"""Partitions by cost, against trying all partitions."""

from __future__ import annotations

import random
from itertools import combinations
from math import inf

import pytest
from torch import nn

import locallearn as ll
from locallearn._chain.discovery import chain_of
from locallearn._chain.trace import trace
from locallearn._planning.by_cost import layer_macs, layer_parameters
from locallearn._planning.dynamic_program import cheapest, smallest_largest, summed
from locallearn._utils.quantities import format_bytes, parse_bytes
from locallearn.cost import bytes_by_module, peak_memory
from networks import resnet20

SHAPE = (3, 16, 16)


def every_partition(ends):
    for count in range(len(ends)):
        for chosen in combinations(ends[:-1], count):
            yield (*chosen, ends[-1])


def costs_of(cost, partition):
    starts = [0, *(end + 1 for end in partition[:-1])]
    return [cost(start, end) for start, end in zip(starts, partition, strict=True)]


def random_cost(seed):
    numbers = random.Random(seed)
    table = {(i, j): numbers.choice([inf, *range(1, 40)]) for i in range(9) for j in range(i, 9)}
    return lambda i, j: table[i, j]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ends", [tuple(range(9)), (0, 2, 3, 6, 8)], ids=["all", "some"])
def test_both_dynamic_programs_are_as_good_as_trying_all(seed, ends):
    additive = summed([random.Random(seed).randint(0, 30) for _ in range(9)])
    for cost in (additive, random_cost(seed)):
        partitions = list(every_partition(ends))
        for modules in range(1, len(ends) + 1):
            balanced = smallest_largest(cost, ends, modules)
            assert len(balanced) == modules
            assert set(balanced) <= set(ends)
            least = min(max(costs_of(cost, p)) for p in partitions if len(p) == modules)
            assert max(costs_of(cost, balanced)) == least
        best = cheapest(cost, ends)
        least = min(sum(costs_of(cost, p)) for p in partitions)
        assert (best is None and least == inf) or (best is not None and sum(costs_of(cost, best)) == least)


@pytest.fixture(scope="module")
def chain():
    return trace(chain_of(resnet20(), (3, 32, 32)), (3, 32, 32))


@pytest.mark.parametrize("quantity", ["parameters", "macs"])
@pytest.mark.parametrize("modules", [1, 3, 10])
def test_partitions_by_parameters_and_macs_are_the_best_of_all(chain, quantity, modules):
    net = ll.localize(resnet20(), ll.DGL(), modules=f"{quantity}:{modules}", input_shape=(3, 32, 32))
    sizes = {"parameters": layer_parameters, "macs": layer_macs}[quantity](chain)
    every = [p for p in every_partition(tuple(range(10))) if len(p) == modules]
    assert len(net.partition) == modules
    assert max(costs_of(summed(sizes), net.partition.ends)) == min(max(costs_of(summed(sizes), p)) for p in every)


def test_the_layers_add_up_to_the_whole_network(chain):
    assert sum(layer_parameters(chain)) == 272_474
    assert sum(layer_macs(chain)) == 40_813_184


BY_PEAK = [
    (ll.DGL(), "fast"),
    (ll.AugLocal(depth=2), "lean"),
    pytest.param(ll.DGL(), "lean", marks=pytest.mark.slow),
    pytest.param(ll.AugLocal(depth=2), "fast", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("rule", "memory"), BY_PEAK, ids=str)
def test_a_partition_by_peak_has_a_lower_one_than_equal_groups(rule, memory):
    of = {"rule": rule, "memory": memory, "input_shape": (3, 32, 32)}
    balanced, equal = (
        peak_memory(ll.localize(resnet20(), modules=modules, **of), 64).activations for modules in ("peak:3", 3)
    )
    assert balanced < equal


@pytest.mark.parametrize(
    "modules", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)]
)
def test_infopros_balanced_splits_are_near_the_best(modules):
    by_hand, best = (
        ll.localize(ll.models.resnet110(), ll.Pooling(), modules=split, input_shape=(3, 32, 32))
        for split in (f"infopro-balanced-{modules}", f"peak:{modules}")
    )
    of_hand, of_best = (max(row.peak for row in bytes_by_module(net, 32)) for net in (by_hand, best))
    assert of_best <= of_hand <= 1.2 * of_best


def test_memory_is_the_fastest_partition_that_fits():
    of = {"rule": ll.DGL(), "input_shape": (3, 32, 32)}
    budgets = [parse_bytes(f"{size}MiB") for size in (32, 40, 60)]
    nets = [ll.localize(resnet20(), modules=f"memory:{size}B@64", **of) for size in budgets]
    for net, budget in zip(nets, budgets, strict=True):
        assert peak_memory(net, 64).total <= budget
        assert len(net.partition) > 1
    counts = [len(net.partition) for net in nets]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


@pytest.mark.parametrize(
    ("modules", "sentence"),
    [
        ("memory:1MiB@64", r"fits in 1.00 MiB with 64 images.*least is \d+.* MiB, with \d+ modules; memory='lean' or"),
        ("memory:1GiB", "as in memory:1GiB@1024"),
        ("memory:1GiB@0", "at least 1, as in memory"),
        ("memory:1Gib8@2", "no amount of memory"),
        ("memory:1XB@2", "no amount of memory: write a number and a unit"),
        ("peak:0", "at least 1, as in peak:8"),
        ("macs:many", "as in macs:8"),
        ("parameters:11", "from 1 to 10"),
    ],
)
def test_bad_input_is_refused(modules, sentence):
    with pytest.raises(ll.LocalLearnError, match=sentence):
        ll.localize(resnet20(), ll.DGL(), modules=modules, input_shape=SHAPE)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GiB", 2**30), ("1.5 MiB", 3 * 2**19), ("2KiB", 2048), ("1GB", 10**9), ("3mb", 3 * 10**6), ("7KB", 7000)],
)
def test_units(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["1", "GiB", "-1GiB", "0MiB", "1 GiB 2", "1Gbit"])
def test_unknown_units_are_refused(text):
    if text == "1":
        text = "1 byte"
    with pytest.raises(ll.LocalLearnError):
        parse_bytes(text)


def test_sizes_in_words():
    assert [format_bytes(size) for size in (12, 2048, 3 * 2**19, 2**31)] == ["12 B", "2.00 KiB", "1.50 MiB", "2.00 GiB"]


def test_peaks_of_frozen_parts_are_counted():
    model = resnet20()
    for part in (model.conv1, model.layer1):
        part.requires_grad_(False)
    assert len(ll.localize(model, ll.DGL(), modules="peak:4", input_shape=(3, 16, 16)).partition) == 4


@pytest.mark.parametrize("modules", ["all", "peak:2"])
def test_a_rule_for_maps_is_refused_on_vectors_in_one_sentence(modules):
    parts = (nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))
    with pytest.raises(ll.LocalLearnError, match=r"the auxiliary network after layer '1' cannot take features of"):
        ll.localize(nn.Sequential(*parts), ll.ImageNetInfoPro(), modules=modules, input_shape=(3, 4, 4))

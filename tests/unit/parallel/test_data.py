"""Two processes that share a batch train as one process on the whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import in_processes
from shared_steps import (
    RULES,
    SYNCHRONISED,
    SYNCHRONISED_VARIANTS,
    VARIANTS,
    accumulated,
    after_steps,
    batch,
    branched,
    branching,
    each_variant,
    made,
    module_by_module,
    part_of,
    stepped_by,
)
from torch import nn

import locallearn as ll
from locallearn import LocalLearnError, parallel
from locallearn.parallel.batch_norm import synchronise_batch_norm
from locallearn.parallel.data import GradientSharing
from locallearn.training import CapturedSteps, Stepper

pytestmark = pytest.mark.filterwarnings("ignore:PFF:locallearn.LocalLearnWarning")


@pytest.fixture(scope="module")
def shared(processes) -> list[dict]:
    return [process["data"] for process in processes]


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def assert_as_one(found: dict, expected: dict) -> None:
    assert_equal(found["state"], expected["state"])
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_two_processes_step_as_one_on_the_whole_batch(rule, shared):
    alone = after_steps(RULES[rule], None)
    for process in shared:
        assert_as_one(process[rule], alone)


@pytest.mark.parametrize("rule", SYNCHRONISED)
def test_synchronised_statistics_are_those_of_the_whole_batch(rule, shared):
    alone = after_steps(RULES[rule], None, training=True)
    for process in shared:
        assert_equal(process["synchronised"][rule]["state"], alone["state"])


@pytest.mark.slow
def test_all_other_rules_step_as_one_on_the_whole_batch(tmp_path):
    alone = stepped_by(VARIANTS, SYNCHRONISED_VARIANTS, None)
    for process in in_processes(each_variant, tmp_path):
        for name in VARIANTS:
            assert_as_one(process[name], alone[name])
        for name in SYNCHRONISED_VARIANTS:
            assert_equal(process["synchronised"][name]["state"], alone["synchronised"][name]["state"])


def test_micro_batches_add_up_and_travel_once(shared):
    for process in shared:
        assert_equal(process["accumulated"], accumulated(None))


def test_modules_may_be_stepped_when_their_gradients_have_come(shared):
    for process in shared:
        assert_equal(process["module by module"], module_by_module(None))


def test_a_branch_that_one_process_ran_has_its_gradient_on_all(shared):
    images = len(batch()[0])
    first, second = (branching(branched(), images, part_of(batch(), rank), rank) for rank in range(2))
    for process in shared:
        found = process["branches"]
        assert [found[f"0.branches.{branch}.weight"] is None for branch in range(3)] == [False, False, True]
        for name, gradient in found.items():
            alone = [part[name] for part in (first, second) if part[name] is not None]
            if gradient is not None:
                torch.testing.assert_close(gradient, sum(alone), rtol=1e-10, atol=1e-12)


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_small_modules_travel_together_and_a_large_one_at_once(one_process, monkeypatch):
    widths = (3, 4, 4, 200, 200, 4, 4)
    layers = [nn.Conv2d(*pair, 3, padding=1) for pair in pairwise(widths)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    net = parallel.data(ll.localize(model, ll.Pooling(), input_shape=(3, 12, 12)))
    events: list[str] = []
    all_reduce = dist.all_reduce

    def told(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        events.append(f"send {tensor.numel()}" if tensor.dtype == torch.float32 else "count")
        return all_reduce(tensor, *args, **kwargs)

    monkeypatch.setattr(dist, "all_reduce", told)
    images, labels = batch()
    net.backward(images.float(), labels, on_complete=lambda module: events.append(f"module {module}"))
    sizes = [sum(parameter.numel() for parameter in net.parameters_of(module)) for module in range(6)]
    told_modules = [event for event in events if "module" in event]
    assert told_modules == [f"module {module}" for module in range(6)]
    sent = [event for event in events if "send" in event]
    numbers = [size + len(net.parameters_of(module)) for module, size in enumerate(sizes)]  # one tells that it is there
    assert sent == [f"send {sum(numbers[:4])}", f"send {sum(numbers[4:])}"]
    assert events.index("module 0") > events.index(sent[0])


def test_processes_hold_equal_weights_after_50_steps(shared):
    first, second = (process["long"]["state"] for process in shared)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_processes_with_other_networks_are_refused(shared):
    for process in shared:
        assert "process 1 has another network than process 0: auxiliary." in process["refused"]
        assert "Give all processes the same settings" in process["refused"]


def test_captured_steps_are_refused():
    net = made(ll.BP())
    net.gradient_sharing = GradientSharing(net, None)
    with pytest.raises(LocalLearnError, match="CUDA graphs do not share gradients"):
        CapturedSteps(net, Stepper(net, torch.optim.SGD), record=lambda work: work)


@pytest.mark.parametrize("divide", [parallel.data, parallel.modules])
def test_modules_that_overlap_are_refused(divide, one_process):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    net = ll.localize(model, ll.BP(), input_shape=(1, 2, 2), overlap=1)
    with pytest.raises(LocalLearnError, match="overlap=1 goes with one process alone"):
        divide(net)


def test_without_processes_the_remedy_is_named():
    with pytest.raises(LocalLearnError, match=r"needs a process group: start the program by torchrun"):
        parallel.data(made(ll.BP()))


@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 0.002), (torch.bfloat16, 0.016), (torch.float32, 1e-6)])
def test_synchronised_statistics_are_as_exact_in_half_precision(monkeypatch, dtype, most):
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, group: None)  # of one process
    torch.manual_seed(0)
    images = torch.randn(100, 2, 28, 28).to(dtype)  # 78,400 positions, more than float16 can count
    alone, together = nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(2))
    synchronise_batch_norm(together, None)
    expected, found = alone(images), together(images)
    assert found.dtype == expected.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=4 * most)
    torch.testing.assert_close(together[0].running_var, alone.running_var, rtol=1e-4, atol=0)

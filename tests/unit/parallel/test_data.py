"""Two processes that share a batch train as one process on the whole batch."""

from __future__ import annotations

import pytest
import torch
from processes import in_processes
from shared_steps import (
    RULES,
    SYNCHRONISED,
    SYNCHRONISED_VARIANTS,
    VARIANTS,
    accumulated,
    after_steps,
    each_variant,
    made,
    module_by_module,
    stepped_by,
)

import locallearn as ll
from locallearn import LocalLearnError, parallel
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


def test_without_processes_the_remedy_is_named():
    with pytest.raises(LocalLearnError, match=r"needs a process group: start the program by torchrun"):
        parallel.data(made(ll.BP()))

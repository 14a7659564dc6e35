"""Processes that have some modules each train as one process with all of them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from pipelined_steps import (
    ALONE,
    IN_THREE,
    MEASURED,
    RULES,
    by_data_and_modules,
    double_batch,
    in_three,
    out_of_order,
    sgd,
    stepped,
    trained,
    with_stale_copies,
)
from processes import in_processes
from shared_steps import localized

from locallearn import LocalLearnError, parallel
from locallearn.parallel.assignment import balanced, module_seconds
from locallearn.training import CapturedSteps, Stepper

pytestmark = pytest.mark.filterwarnings("ignore:PFF:locallearn.LocalLearnWarning")


@pytest.fixture(scope="module")
def parts(processes) -> list[dict]:
    return [process["modules"] for process in processes]


def assert_same_bits(parts: list[dict], alone: dict) -> None:
    for part in parts:
        assert part["state"].keys() == alone["state"].keys()
        differing = [name for name, value in alone["state"].items() if not torch.equal(value, part["state"][name])]
        assert not differing
        if "logits" in alone:
            assert torch.equal(part["logits"], alone["logits"])
    if "losses" in alone:
        assert torch.equal(torch.cat([part["losses"] for part in parts], dim=1), alone["losses"])


@pytest.mark.parametrize("name", ALONE)
def test_two_processes_have_the_bits_of_one(name, parts):
    assert_same_bits([part[name] for part in parts], ALONE[name]())


def test_each_module_is_complete_once_in_its_own_process(parts):
    completed = [part["by module"]["completed"] for part in parts]
    assert [sorted(modules) for modules in completed] == [sorted(3 * [0, 1]), sorted(3 * [2, 3, 4])]


def test_asynchronous_processes_train_on_what_is_in_the_buffer(parts):
    first, second = (part["asynchronous"] for part in parts)
    assert first["order"] == [0, 1, 2, 3, 4, 5]
    assert first["staleness"] is None
    order, staleness = second["order"], second["staleness"]
    assert staleness.batches == len(order) == 7
    assert staleness.reused == 7 - len(set(order)) >= 2
    assert 0 < staleness.mean <= staleness.largest
    alone = out_of_order(order)
    for part in (first, second):
        assert [name for name, value in alone.items() if not torch.equal(value, part["state"][name])] == []


def test_a_process_holds_its_own_part_alone(parts):
    net = localized(RULES["MAN"])
    first, second = (part["part"] for part in parts)
    for part in (first, second):
        assert part["alive"] == part["own"]
        assert part["by module"]
        assert not any(part["elsewhere"])
        assert part["losses"] == part["logits"] == len(part["objectives"])
    assert first["own"] + second["own"] == len([*net.parameters(), *net.buffers()])
    assert first["names"] | second["names"] == set(net.state_dict())
    assert not first["names"] & second["names"]
    assert first["objectives"] + second["objectives"] == [(o.first, o.last) for o in net.objectives]


def test_features_alone_travel_forward_and_followed_layers_alone_back(parts):
    features = 6 * 6 * 12 * 12 * 4
    assert parts[0]["part"]["sent"] == 2 * features
    assert parts[1]["part"]["sent"] == sum(p.nbytes for p in localized(RULES["MAN"]).local_modules[2].parameters())


@pytest.mark.parametrize(("name", "count"), MEASURED)
def test_peak_memory_of_a_process_is_as_predicted(name, count, parts):
    net = localized(RULES[name])
    make_stepper = partial(Stepper, make_optimizer=sgd)
    options = {"assignment": (2, len(net.partition) - 2), "accumulate": count, "make_stepper": make_stepper}
    predicted = parallel.predict_modules(net, 2, 64, **options)
    for cost, part in zip(predicted, parts, strict=True):
        assert cost.peak.total == pytest.approx(part["peaks"][name, count], rel=0.02)


def test_the_peak_of_an_asynchronous_process_has_its_full_buffer():
    net = localized(RULES["DGL"])
    first, second = parallel.predict_modules(net, 2, 4, assignment=(2, 3))
    first_replayed, replayed = parallel.predict_modules(net, 2, 4, assignment=(2, 3), replay_buffer=3)
    features, labels = 4 * 6 * 12 * 12 * 4, 4 * 8
    assert first_replayed == first
    assert replayed.peak.total - second.peak.total == 3 * features + 4 * labels
    with pytest.raises(LocalLearnError, match="replay_buffer: the gradient of local modules"):
        parallel.predict_modules(localized(RULES["HiLo"]), 2, 4, assignment=(2, 3), replay_buffer=3)


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        ("clip", r"clip_norm=1.0 is the norm over all local modules, of which this process has \d of 5: clip each"),
        ("twice", "divided among processes already"),
        ("images", r"process \d has no images or no labels: give each process the same batch, or call"),
        ("counts", r"assignment=\(4, 4\): give the number of local modules of each of the 2 processes"),
        ("settings", r"process 1 has assignment=\(3, 2\), and process 0 has \(2, 3\): give all processes the same"),
        ("options", "process 1 has send_labels=True, and process 0 has False"),
        ("untrained", r"local module 0 is trained by cascades of later processes alone"),
        (
            "asynchronous cascades",
            "gradient of local modules 1 to 2 travels from process 1 back to 0, which does not",
        ),
        ("asynchronous copies", "EMA copies of process 0 follow layers of process 1 step by step: leave replay_buffer"),
        ("no buffer", "replay_buffer=0 must be at least 1 batch"),
        ("asynchronous batches", r"call parallel\.modules without replay_buffer, or leave parallel\.data out"),
        ("too many", "2 processes for 1 local module: each needs at least one, so start at most 1"),
    ],
)
def test_mistakes_are_refused_in_every_process(attempt, sentence, parts):
    for part in parts:
        with pytest.raises(LocalLearnError, match=sentence):
            raise LocalLearnError(part["refused"][attempt])


def test_processes_that_do_different_things_are_told(parts):
    assert parts[0]["refused"]["other batch"] == parts[0]["refused"]["other method"] == "nothing"
    assert "process 1 was given 5 images, and the one before 6" in parts[1]["refused"]["other batch"]
    assert "process 0 runs backward and process 1 inference on a batch" in parts[1]["refused"]["other method"]


def test_without_processes_the_remedy_is_named():
    with pytest.raises(
        LocalLearnError, match=r"parallel\.modules needs a process group: start the program by torchrun"
    ):
        parallel.modules(localized(RULES["BP"]))


def test_the_default_assignment_makes_the_slowest_process_fastest():
    net = localized(RULES["DGL"])
    seconds = module_seconds(net)
    assert len(seconds) == 5
    assert min(seconds) > 0
    assert balanced([4, 1, 1, 1, 3], 2).counts == (2, 3)
    assert balanced([1, 1, 1, 1, 9], 3).counts == (2, 2, 1)


def test_captured_steps_are_refused():
    net = localized(RULES["BP"])
    net.part = range(2)
    with pytest.raises(LocalLearnError, match="do not exchange features with other processes"):
        CapturedSteps(net, Stepper(net, torch.optim.SGD), record=lambda work: work)


@pytest.mark.slow
def test_three_processes_have_the_bits_of_one(tmp_path):
    parts = in_processes(in_three, tmp_path, count=3)
    for name, rule in IN_THREE.items():
        assert_same_bits([part[name] for part in parts], trained(localized(rule)))
    assert sum(part["page"] for part in parts) > 100
    assert_same_bits(
        [part["stale"] for part in parts], trained(with_stale_copies(localized(RULES["LAM"]), (1, 1, 3)), steps=8)
    )


@pytest.mark.slow
def test_modules_and_data_are_divided_at_once(tmp_path):
    shared = in_processes(by_data_and_modules, tmp_path, count=4)
    for name in shared[0]:
        alone = stepped(localized(RULES[name]).double().eval(), double_batch)
        for process in shared:
            for key, value in alone["state"].items():
                torch.testing.assert_close(process[name]["state"][key], value, rtol=1e-10, atol=1e-12)
        losses = torch.cat([shared[0][name]["losses"], shared[2][name]["losses"]], dim=1)
        torch.testing.assert_close(losses, alone["losses"], rtol=1e-10, atol=1e-12)

"""The planner: its plans fit and are fast; its predictions agree with real steps and with measured times."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import plain

import locallearn as ll
from locallearn._engine.stepper import ModuleStepper, Stepper
from locallearn._planning.depths import variants
from locallearn._planning.prediction import example_batch
from locallearn._planning.search import fewest_modules
from locallearn._torch.op_counter import SECONDS, Work
from locallearn._utils.registry import find
from locallearn.cli.parser import parse_rule
from locallearn.cost import draw_plan, measure, peak_memory, plan, predict, step_macs
from locallearn.training import SGD, AdamW, rule_text
from networks import resnet20

MIB = 2**20
SHAPE = (3, 16, 16)
MEASURED = Path(__file__).parents[3] / "benchmarks/results/plan.json"
planned = partial(plan, input_shape=SHAPE, batch=64)


def net_of(model: str, rule: ll.Rule, size: int, **settings: Any) -> ll.LocalNet:
    net = ll.localize(find("models", model)(num_classes=10), rule, input_shape=(3, size, size), **settings)
    return net.to(memory_format=torch.channels_last)


SETTINGS: dict[str, tuple[str, ll.Rule, int, int, dict[str, Any], Any, torch.dtype | None]] = {
    "BP": ("resnet20", ll.BP(), 16, 8, {}, Stepper, None),
    "checkpointing": ("resnet20", ll.Checkpoint(), 16, 16, {}, Stepper, None),
    "DGL, balanced": ("resnet20", ll.DGL(), 16, 8, {"modules": "peak:4"}, Stepper, None),
    "AugLocal, lean": ("resnet20", ll.AugLocal(depth=3), 16, 8, {"memory": "lean"}, Stepper, None),
    "AugLocal, each module at once": ("resnet20", ll.AugLocal(depth=2), 16, 4, {"modules": 3}, ModuleStepper, None),
    "InfoPro, odd size": ("resnet20", ll.InfoPro(), 19, 6, {"modules": 4}, Stepper, None),
    "EMA copies": ("resnet20", ll.MAN(ll.DGL()), 16, 8, {"modules": 4}, Stepper, None),
    "cascades, lean": ("resnet20", ll.HiLo(ll.DGL()), 16, 8, {"modules": 4, "memory": "lean"}, Stepper, None),
    "bf16": ("resnet20", ll.DGL(), 32, 8, {"modules": 5}, Stepper, torch.bfloat16),
    "tokens": ("cifar-vit-tiny", ll.DGL(), 32, 2, {"modules": 3}, Stepper, None),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_predicted_peak_is_that_of_a_real_step(name):
    model, rule, size, batch, settings, kind, autocast = SETTINGS[name]
    net = net_of(model, rule, size, **settings)
    optimizer = AdamW() if name == "tokens" else SGD()
    make_stepper = partial(kind, make_optimizer=optimizer.make)
    predicted = predict(net, batch, make_stepper=make_stepper, autocast=autocast)
    real = measure(net, make_stepper(net), *example_batch(net, batch), autocast=autocast)
    assert predicted.peak.total == pytest.approx(real.total, rel=0.02)
    assert predicted.peak == peak_memory(net, batch, make_stepper=make_stepper, autocast=autocast)


def test_a_prediction_in_the_callers_autocast_does_not_count_the_recompute_plan():
    net = ll.localize(resnet20(), ll.DGL(), input_shape=(3, 32, 32), memory="lean")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert predict(net, 64).macs == predict(net, 64, autocast=torch.bfloat16).macs


@pytest.mark.slow
def test_predicted_time_ranks_measured_settings_as_measured():
    """The constants were fitted to other settings than these."""
    rows = [row for row in json.loads(MEASURED.read_text())["rows"] if row["for"] == "check"]
    predicted = []
    for row in rows:
        net = net_of(row["model"], parse_rule(row["rule"]), row["image"], modules=row["modules"], memory=row["memory"])
        predicted.append(predict(net, row["batch"]).seconds)
    assert len(rows) >= 14
    assert spearman([row["seconds"] for row in rows], predicted) >= 0.9


def test_recorded_predictions_rank_as_measured_and_use_the_constants():
    recorded = json.loads(MEASURED.read_text())
    assert recorded["constants"] == SECONDS
    rows = [row for row in recorded["rows"] if row["for"] == "check"]
    seconds = [sum(SECONDS[kind] * count for kind, count in row["work"].items()) for row in rows]
    assert seconds == pytest.approx([row["predicted"] for row in rows])
    assert spearman([row["seconds"] for row in rows], [row["predicted"] for row in rows]) >= 0.9


def spearman(a: list[float], b: list[float]) -> float:
    ranks = torch.stack([torch.tensor(values).argsort().argsort().double() for values in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def test_work_counts_the_macs_of_a_step():
    net = ll.localize(resnet20(), ll.DGL(), modules=4, input_shape=SHAPE)
    assert predict(net, 4).macs == step_macs(net, 4)
    with Work() as work:
        torch.zeros(3, 4) @ torch.zeros(4, 5)
    assert work.counts["mac of matrix products"] == 60
    assert work.macs == 60


@pytest.fixture(scope="module")
def dgl():
    return planned(resnet20(), ll.DGL(), budget=15 * MIB)


def test_the_best_fits_and_localize_makes_the_same_network(dgl):
    best = dgl.best
    assert best.peak <= 15 * MIB
    assert (best.accumulate, best.micro_batch) == (1, 64)
    net = ll.localize(resnet20(), best.rule, modules=list(best.modules), memory=best.memory, input_shape=SHAPE)
    prediction = predict(net.to(memory_format=torch.channels_last), 64)
    assert (prediction.peak.total, prediction.macs, prediction.seconds) == (best.peak, best.macs, best.seconds)
    assert len(net.partition) == len(best.modules)


def test_candidates_are_a_frontier_beside_bp_and_checkpointing(dgl):
    assert dgl.best in dgl.candidates
    for one, other in pairwise(dgl.candidates):
        assert one.peak < other.peak
        assert one.seconds > other.seconds
    whole, *fitting = [(str(one.rule), one.memory, one.peak <= dgl.budget) for one in dgl.baselines]
    assert whole == ("BP", "fast", False)
    assert fitting == [(rule, memory, True) for rule in ("BP", "Checkpoint") for memory in ("fast", "lean", "least")]


TINY: dict[str, Any] = {"input_shape": (3, 12, 12), "batch": 8}


def test_baselines_have_the_fewest_micro_batches_that_fit():
    whole, bp, *_ = plan(plain(3, 3), ll.Pooling(), **TINY, budget=200 * 1024).baselines
    assert (whole.accumulate, bp.accumulate) == (1, 4)
    net = ll.localize(plain(3, 3), ll.BP(), input_shape=(3, 12, 12)).to(memory_format=torch.channels_last)
    assert bp.peak <= 200 * 1024 < predict(net, 8, accumulate=2).peak.total


def test_where_no_local_rule_fits_the_error_names_what_does():
    sentence = (
        r"no local rule fits in 130.00 KiB: the least is \d.* KiB, with DGL, 2 modules, .*; BP fits, with \d.* KiB: "
    )
    with pytest.raises(ll.LocalLearnError, match=sentence):
        plan(plain(3, 3), [ll.DGL()], **TINY, budget=130 * 1024)
    with pytest.raises(ll.LocalLearnError, match=r"nothing fits in 1.00 KiB: .* needs \d.* 2 images at a time"):
        plan(plain(3, 3), ll.DGL(), **TINY | {"batch": 2}, budget=1024)


@pytest.mark.parametrize(
    ("rule", "modules"),
    [(ll.BP(), 1), (ll.DGL(), 2), (ll.HiLo(ll.DGL()), 3), (ll.MLAAN(ll.DGL()), 4), (ll.MAN(ll.DGL()), 2)],
    ids=str,
)
def test_a_rule_is_planned_with_as_many_modules_as_give_it_an_auxiliary_network(rule, modules):
    assert fewest_modules(rule, 10) == modules
    assert len(ll.localize(plain(3, 3), rule, modules=1, input_shape=(3, 12, 12)).auxiliary) == 0


def test_what_would_be_backpropagation_is_left_out_with_the_reason():
    found = plan(plain(3, 3), [ll.Pooling(), ll.MLAAN(ll.DGL()), ll.AugLocal()], **TINY, budget=MIB)
    assert all(len(one.modules) > 1 for one in found.candidates)
    assert [one.partition(" is left out: ")[0] for one in found.left_out] == [
        "MLAAN(DGL)",
        *(f"AugLocal, depth {depth}" for depth in (3, 4, 5, 6)),
    ]
    assert "on the 3 layers of this network it has no auxiliary networks" in found.left_out[0]
    with pytest.raises(ll.LocalLearnError, match="on the 3 layers of this network"):
        plan(plain(3, 3), ll.AugLocal(), **TINY, budget=MIB, depths=(4,))


def test_a_single_image_is_refused_by_the_part_that_needs_several():
    with pytest.raises(ll.LocalLearnError, match="the auxiliary network of local module 0 normalises over several"):
        plan(plain(3, 3), ll.DGL(), **TINY | {"batch": 1}, budget=MIB)


@pytest.mark.parametrize("modules", [2, pytest.param(3, marks=pytest.mark.slow), 4, 6, 10])
@pytest.mark.parametrize("memory", ["fast", "lean", "least"])
def test_no_equal_groups_that_fit_are_much_faster(dgl, modules, memory):
    net = ll.localize(resnet20(), ll.DGL(), modules=modules, memory=memory, input_shape=SHAPE)
    prediction = predict(net, 64)
    assert prediction.peak.total > dgl.budget or prediction.seconds >= 0.98 * dgl.best.seconds


def test_more_memory_is_less_time(dgl):
    more = planned(resnet20(), ll.DGL(), budget=20 * MIB).best
    assert more.seconds < dgl.best.seconds
    assert len(more.modules) < len(dgl.best.modules)


@pytest.mark.slow
def test_the_depth_is_chosen_or_given():
    chosen = planned(resnet20(), ll.AugLocal(), budget=18 * MIB, depths=(2, 3)).best
    given = planned(resnet20(), ll.AugLocal(), budget=18 * MIB, depths=(3,)).best
    assert given.rule == ll.AugLocal(depth=3)
    assert chosen.seconds <= given.seconds


def test_the_depth_of_a_wrapped_rule_is_set():
    assert variants(ll.MAN(ll.AugLocal()), (2, 3)) == [ll.MAN(ll.AugLocal(depth=2)), ll.MAN(ll.AugLocal(depth=3))]


def test_the_batch_is_split_where_nothing_else_fits():
    best = planned(resnet20(), ll.DGL(), budget=8 * MIB).best
    assert best.accumulate > 1
    assert best.micro_batch == -(-64 // best.accumulate)
    assert best.peak <= 8 * MIB


def test_cascades_fit():
    best = planned(resnet20(), ll.HiLo(ll.DGL()), budget=25 * MIB).best
    assert best.peak <= 25 * MIB


def test_plot(dgl, tmp_path):
    draw_plan(dgl, tmp_path / "plan.png", title="a title")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("rule", "settings", "sentence"),
    [
        (ll.DGL(), {"budget": MIB, "batch": 0}, "batch=0 must be at least 1"),
        (ll.BP(), {"budget": MIB}, "no auxiliary networks, so there is nothing to plan"),
    ],
)
def test_bad_input_is_refused(rule, settings, sentence):
    with pytest.raises(ll.LocalLearnError, match=sentence):
        planned(resnet20(), rule, **settings)


@pytest.mark.parametrize("text", ["dgl", "auglocal(depth=3)", "hpff(man(auglocal(depth=3, tau=0.25)))", "bp"])
def test_rules_as_text_and_back(text):
    assert rule_text(parse_rule(text)) == text

"""Runs that differ by seed alone."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import pytest
from report_runs import copies, groups, made, read, runs

from locallearn import LocalLearnError
from locallearn.report import Run, differing_conditions, group_runs, numbers, summary
from locallearn.report.groups import baseline_of, common_settings, differing_settings, setting_text, spread
from locallearn.training import SGD


def test_runs_that_differ_by_seed_alone_are_one_group():
    assert [(group.label, len(group.runs)) for group in groups()] == [
        ("bp", 1),
        ("dgl(hidden=1)", 2),
        ("hilo(dgl(hidden=1))", 1),
    ]
    assert [group.look for group in groups()] == [0, 1, 2]


def test_mean_and_standard_deviation_are_over_seeds():
    dgl = groups()[1]
    values = [run.rows[-1]["test_accuracy"] for run in dgl.runs]
    assert dgl.accuracy.mean == pytest.approx(statistics.mean(values))
    assert dgl.accuracy.deviation == pytest.approx(statistics.stdev(values))
    assert spread([0.25, 0.35]).percent == "30.00 ± 7.07 %"
    assert spread([0.25]).percent == "25.00 %"
    assert numbers(groups())["bp"]["test_accuracy_deviation"] is None


def test_settings_tell_groups_of_the_same_rule_apart(tmp_path):
    found = group_runs([*read(made() / "dgl"), *read(made() / "dgl-1", batch=32), *read(made() / "bp")])
    assert [group.label for group in found] == ["dgl(hidden=1), batch 64", "dgl(hidden=1), batch 32", "bp"]


def test_the_number_of_workers_makes_no_group():
    assert len(group_runs([*read(made() / "dgl"), *read(made() / "dgl-1", workers=0)])) == 1


def test_every_setting_is_in_one_of_both_tables():
    different, common = differing_settings(runs()), common_settings(runs())
    assert different == {"rule": ["bp", "dgl(hidden=1)", "dgl(hidden=1)", "hilo(dgl(hidden=1))"], "seed": [0, 0, 1, 0]}
    assert not different.keys() & common.keys()
    assert common["data"] == "digits"
    assert setting_text(common["schedule"]) == "Cosine(warmup=0.0)"
    assert setting_text(["a", 1]) == "a, 1"


def test_validated_runs_have_every_accuracy_of_the_last_and_of_the_best_epoch():
    """The best epoch on the validation images is the first one, with a test accuracy of 0.5 and 0.6."""
    dgl = [
        replace(run, rows=tuple(row | {"validation_accuracy": v} for row, v in zip(run.rows, (0.9, 0.4), strict=True)))
        for run in (with_settings(runs()[1], 0.5), with_settings(runs()[2], 0.6))
    ]
    (found,) = numbers(group_runs(dgl)).values()
    assert found["best_chosen_on"] == "validation"
    assert (found["best_accuracies"], found["best_accuracy"]) == ([0.5, 0.6], 0.55)
    assert found["best_accuracy_deviation"] == pytest.approx(statistics.stdev([0.5, 0.6]))
    assert (found["validation_accuracies"], found["best_validation_accuracies"]) == ([0.4, 0.4], [0.9, 0.9])
    assert found["best_validation_accuracy"] == 0.9
    (found,) = numbers(group_runs([dgl[0], runs()[2]])).values()
    assert "validation_accuracy" not in found, "one of both has none"


def with_settings(run: Run, accuracy: float, **changes) -> Run:
    rows = tuple(row | {"test_accuracy": accuracy} for row in run.rows)
    return replace(run, rows=rows, settings=replace(run.settings, **changes))


def test_each_group_is_measured_against_the_backpropagation_trained_like_it():
    bp, dgl = runs()[:2]
    found = group_runs(
        [
            with_settings(bp, 0.5),
            with_settings(bp, 0.9, epochs=9),
            with_settings(bp, 0.8, epochs=9, optimizer=SGD(lr=0.2)),
            with_settings(dgl, 0.7, epochs=9, optimizer=SGD(lr=0.2)),
            with_settings(dgl, 0.4),
            with_settings(dgl, 0.3, model="resnet20"),
        ]
    )
    bps = [baseline_of(group, found) for group in found]
    assert [bp and found.index(bp) for bp in bps] == [0, 1, 2, 2, 0, None]
    assert [one["points_behind_bp"] for one in numbers(found).values()] == pytest.approx([0, 0, 0, 10, 10, None])
    table = summary(found, {})
    behind = [row[table.columns.index("behind BP, points")].text for row in table.rows]
    assert behind == ["-", "-", "-", "10.00", "10.00", "-"]
    peaks = [row[table.columns.index("peak activations, MiB")].note for row in table.rows]
    assert [bool(note) for note in peaks] == [False, False, False, True, True, False]


def test_the_best_accuracy_is_marked_for_each_data_set():
    one, other = with_settings(runs()[0], 0.9), with_settings(runs()[1], 0.8)
    elsewhere = [with_settings(run, accuracy, data="svhn") for run, accuracy in ((one, 0.5), (other, 0.6))]
    rows = summary(group_runs([one, other, *elsewhere]), {}).rows
    assert [row[1].best for row in rows] == [True, False, False, True]


def test_settings_that_change_results_are_told_beside_the_rule_and_the_seed():
    bp, dgl, other, _ = runs()
    found = group_runs([bp, with_settings(dgl, 0.5, batch=32, workers=0), with_settings(other, 0.5, batch=32)])
    assert differing_conditions(found) == {"batch": [64, 32]}
    assert [one["settings_that_differ"] for one in numbers(found).values()] == [{"batch": 64}, {"batch": 32}]


def test_a_run_that_went_on_with_other_settings_is_a_group_apart(tmp_path):
    (path,) = copies(tmp_path, "dgl-1")
    classes = [
        {"class_path": "locallearn.training.SGD", "init_args": {"lr": lr, "momentum": 0.9}} for lr in (0.1, 0.05)
    ]
    changes = {"epochs": {"before": 1, "now": 2}, "optimizer": dict(zip(("before", "now"), classes, strict=True))}
    events = [{"epoch": 2, "step": 1, "changes": changes}, {"epoch": 3, "step": 0, "stopped_early": {"best_epoch": 1}}]
    (path / "history.json").write_text(json.dumps(events))
    texts = [
        "epochs changed from 1 to 2 at epoch 2, step 2",
        "optimizer.lr changed from 0.1 to 0.05 at epoch 2, step 2",
    ]
    found = group_runs([*read(made() / "dgl"), *read(path)])
    assert [group.label for group in found] == ["dgl(hidden=1)", ", ".join(["dgl(hidden=1)", *texts])]
    assert differing_conditions(found) == {"changed by --resume": [[], texts]}
    assert setting_text([]) == "none"
    (path / "history.json").write_text('[{"changes": [1]}]')
    with pytest.raises(LocalLearnError, match=r"history.json is damaged: it must be a list of events"):
        read(path)


def test_one_seed_does_not_count_twice(tmp_path):
    (path,) = copies(tmp_path, "dgl")
    with pytest.raises(LocalLearnError, match=rf"{made()}/dgl and {path} have the same settings and the same seed, 0"):
        group_runs([*read(made() / "dgl"), *read(made() / "dgl-1"), *read(path)])


def test_equal_numbers_are_one_setting():
    one, other = (
        replace(run, settings=replace(run.settings, label_smoothing=n))
        for run, n in zip(runs()[1:3], (0, 0.0), strict=True)
    )
    assert len(group_runs([one, other])) == 1

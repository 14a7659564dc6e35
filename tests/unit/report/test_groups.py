"""Runs that differ by seed alone."""

from __future__ import annotations

import statistics

import pytest
from report_runs import groups, made, read, runs

from locallearn.report import group_runs
from locallearn.report.groups import common_settings, differing_settings, setting_text, spread


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
    assert spread([0.25]).deviation == 0


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

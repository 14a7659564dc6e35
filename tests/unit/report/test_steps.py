"""The training step of a run, counted once and stored in its folder."""

from __future__ import annotations

from dataclasses import replace

from report_runs import copies, made, read

import locallearn as ll
from locallearn.report import group_runs, record_steps
from locallearn.report.steps import tau_of, with_tau


def test_the_record_has_the_peak_that_training_predicted_and_is_used_again(tmp_path):
    (path,) = copies(tmp_path, "hilo")
    (group,) = group_runs(read(path))
    told: list[str] = []
    (record,) = record_steps([group], say=told.append).values()
    assert max(record.activations) == group.result("peak_activation_bytes")
    assert record.modules == 3
    assert (0, 1) in record.spans
    assert record.macs > 0
    assert told == ["counting the training step of hilo(dgl(hidden=1)) (1 of 1)"]
    assert record_steps([group], say=told.append) == {group.label: record}
    assert len(told) == 1


def test_a_damaged_record_is_counted_again(tmp_path):
    (path,) = copies(tmp_path, "bp")
    (path / "analysis").mkdir(exist_ok=True)
    file = path / "analysis" / "step.json"
    file.write_text('{"seconds": []}')
    told: list[str] = []
    record_steps(group_runs(read(path)), say=told.append)
    assert told[0] == f"{file} is damaged: it is computed again."
    assert record_steps(group_runs(read(path)), say=told.append)
    assert len(told) == 2


def test_a_record_of_other_settings_is_counted_again(tmp_path):
    (path,) = copies(tmp_path, "bp")
    (first,) = record_steps(group_runs(read(path))).values()
    (other,) = record_steps(group_runs(read(path, batch=32))).values()
    assert max(other.activations) < max(first.activations)


def test_a_network_that_cannot_be_made_is_left_out_with_the_reason():
    told: list[str] = []
    assert record_steps(group_runs(read(made() / "bp", model="nowhere.net")), say=told.append) == {}
    assert "its training step is left out" in told[-1]
    assert "nowhere" in told[-1]


def test_tau_is_that_of_auglocal_inside_wrappers():
    rule = ll.HPFF(ll.MAN(ll.AugLocal(depth=3, tau=0.25)))
    assert tau_of(rule) == 0.25
    assert tau_of(with_tau(rule, 1.0)) == 1.0
    assert tau_of(ll.DGL()) is None


def test_without_a_pyramid_auglocal_costs_more(tmp_path):
    (path,) = copies(tmp_path, "bp")
    run = read(path)[0]
    settings = replace(run.settings, model="resnet20", rule=ll.AugLocal(depth=4, tau=1.0))
    (group,) = group_runs([replace(run, settings=settings)])
    (record,) = record_steps([group]).values()
    assert record.macs_without_pyramid is not None
    assert record.macs < record.macs_without_pyramid

"""Run folders, read for a comparison."""

from __future__ import annotations

import json

import pytest
from report_runs import change, copies, made, read

from locallearn import LocalLearnError
from locallearn.report.runs import refuse_same_folder
from locallearn.training import refuse_other_data


def test_a_run_is_read_without_its_checkpoints():
    (run,) = read(made() / "dgl")
    assert run.finished
    assert len(run.rows) == 2
    assert run.accuracy == run.result["test_accuracy"]
    assert run.environment["repeat"].startswith("locallearn train --config")
    assert len(run.card.classes) == 10


def test_an_unfinished_run_is_read(tmp_path):
    (path,) = copies(tmp_path, "dgl")
    (path / "result.json").unlink()
    lines = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text(lines[0] + "\n" + lines[1][:20])
    (run,) = read(path)
    assert not run.finished
    assert len(run.rows) == 1
    assert run.result == {}


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("metrics.jsonl", "", "has no metrics yet: train it for an epoch, or leave it out"),
        ("metrics.jsonl", '{"epoch": 1}\n', "metrics.jsonl is damaged: a line has no lr"),
        ("metrics.jsonl", "[]\n", "metrics.jsonl is damaged: each line must be JSON with an epoch"),
        ("result.json", "[1]", "result.json is damaged: it has no peak_activation_bytes"),
        ("environment.json", "{", "environment.json is damaged: it is no JSON"),
        ("data.json", "{}", "data.json is damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, file, content, sentence):
    (path,) = copies(tmp_path, "dgl")
    (path / file).write_text(content)
    with pytest.raises(LocalLearnError, match=sentence):
        read(path)


@pytest.mark.parametrize("metric", ["test_accuracy", "validation_accuracy"])
@pytest.mark.parametrize("value", ["high", None, float("nan"), True, [1]])
def test_a_metric_that_is_no_number_is_refused(tmp_path, value, metric):
    (path,) = copies(tmp_path, "dgl")
    change(path / "metrics.jsonl", lambda row: row | {metric: value})
    with pytest.raises(LocalLearnError, match="epoch 1 has a metric that is no number"):
        read(path)


def test_a_run_given_twice_is_refused(tmp_path):
    (tmp_path / "dgl-link").symlink_to(made() / "dgl")
    with pytest.raises(LocalLearnError, match="dgl-link is given twice"):
        refuse_same_folder(read(made() / "dgl", tmp_path / "dgl-link"))


def test_runs_on_different_data_are_refused_with_both_names():
    one, other = *read(made() / "bp"), *read(made() / "dgl", data="cifar10")
    with pytest.raises(LocalLearnError, match=r"dgl is of cifar10, and .*bp of digits"):
        refuse_other_data([one, other])


def test_runs_on_different_classes_are_refused_with_those_that_differ(tmp_path):
    from locallearn._utils.hashed_json import write_hashed_json

    (path,) = copies(tmp_path, "dgl")
    card = json.loads((path / "data.json").read_text())
    del card["content_sha256"]
    write_hashed_json(path / "data.json", card | {"classes": [*card["classes"][:-1], "ten"]})
    with pytest.raises(LocalLearnError, match=r"has other classes than .*\(9, ten differ\)"):
        refuse_other_data([*read(made() / "bp"), *read(path)])

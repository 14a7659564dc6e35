"""Metrics in TensorBoard, at Weights & Biases, and in a logger of the user's own."""

from __future__ import annotations

import json

import pytest
from small_runs import StopAfter, settings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from locallearn import LocalLearnError
from locallearn.training import Interrupted, RunFolder, train
from locallearn.training.loggers import numbers_of

STEPS = 4  # of an epoch


def test_numbers_of_a_row_have_a_name_each():
    row = {"epoch": 2, "lr": 0.1, "losses": [1.5, 0.5], "head_accuracies": [None, 0.25], "skipped_images": ["a.jpg"]}
    assert numbers_of(row) == {"lr": 0.1, "losses/00": 1.5, "losses/01": 0.5, "head_accuracies/01": 0.25}


def test_tensorboard_has_every_metric_and_one_chart_of_all_losses(tmp_path):
    train(settings(epochs=2, eval_heads=True), tmp_path)
    found, rows = EventAccumulator(str(tmp_path)), RunFolder(tmp_path).rows()
    found.Reload()
    for name in numbers_of(rows[0]):
        values = [numbers_of(row)[name] for row in rows]
        assert [event.value for event in found.Scalars(name)] == pytest.approx(values, rel=1e-6)
    tensor = found.Tensors("custom_scalars__config__")[0].tensor_proto
    charts = {chart.title: chart for chart in Layout.FromString(tensor.string_val[0]).category[0].chart}
    assert list(charts["training loss of each objective"].multiline.tag) == ["losses/.*"]


def test_a_logger_of_ones_own_sees_each_epoch_once_over_a_stop_and_an_end(tmp_path):
    asked = settings(loggers=("own_logger.Mine",))
    with pytest.raises(Interrupted):
        train(asked, tmp_path, watcher=StopAfter(STEPS + 1))
    train(asked, tmp_path, resume="last")
    told = [json.loads(line) for line in (tmp_path / "mine.jsonl").read_text().splitlines()]
    first, *rest = [["log", row["epoch"], numbers_of(row)] for row in RunFolder(tmp_path).rows()]
    assert told == [["start", 1, 3], first, ["close"], ["start", 2, 3], *rest, ["close"]]
    assert not list(tmp_path.glob("events.*"))


def test_an_unknown_logger_is_refused_before_training():
    with pytest.raises(LocalLearnError, match=r"unknown logger 'tensorbord'; did you mean 'tensorboard'\?"):
        settings(loggers=("tensorbord",))


def test_a_logger_that_does_not_start_leaves_no_folder(tmp_path):
    with pytest.raises(LocalLearnError, match="there is nowhere to log to"):
        train(settings(loggers=("own_logger.Nowhere",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    asked = settings(epochs=2, loggers=("wandb",))
    with pytest.raises(Interrupted):
        train(asked, tmp_path, watcher=StopAfter(STEPS + 1))
    train(asked, tmp_path, resume="last")
    parts = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(parts) == 2
    assert parts[0].name == parts[1].name  # of the same run
    written = [part.read_bytes() for part in parts]
    assert all(b"losses/00" in part and b"test_accuracy" in part for part in written)
    assert b"losses by objective" in written[1]

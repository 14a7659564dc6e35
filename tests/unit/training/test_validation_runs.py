"""Runs with validation images choose their best epoch on these, and report its test accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import run
from small_runs import StopAfter, assert_equal_runs, settings, stripes, timeless

from locallearn import LocalLearnError
from locallearn.data import Feed, hold_out
from locallearn.training import SGD, Interrupted, RunFolder, build, evaluate, load_checkpoint, train


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run with validation images."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(settings(validation=0.2), folder)
    return folder


def test_the_best_epoch_is_chosen_on_validation_images(whole):
    rows, result = timeless(whole), json.loads((whole / "result.json").read_text())
    accuracies = [row["validation_accuracy"] for row in rows]
    best = rows[accuracies.index(max(accuracies))]
    assert result["best_chosen_on"] == "validation"
    assert result["best_epoch"] == best["epoch"]
    assert result["best_accuracy"] == best["test_accuracy"]
    assert (result["validation_accuracy"], result["best_validation_accuracy"]) == (accuracies[-1], max(accuracies))
    state = load_checkpoint(whole / "best.pt")
    assert (state["epoch"] - 1, state["best"]) == (best["epoch"], max(accuracies))


def test_its_accuracy_is_that_of_the_images_held_out(whole):
    asked = settings(validation=0.2)
    held = hold_out(stripes(Path()), 0.2, seed=0)[1]
    net = build(asked, held)
    net.load_state_dict(load_checkpoint(whole / "last.pt")["net"])
    result = evaluate(net, held.testing(Feed(batch=32)))
    assert result.accuracy == timeless(whole)[-1]["validation_accuracy"]
    assert result.loss == pytest.approx(timeless(whole)[-1]["validation_loss"])


def test_stopping_and_resuming_changes_no_bit(whole, tmp_path):
    with pytest.raises(Interrupted):
        train(settings(validation=0.2), tmp_path / "parts", watcher=StopAfter(4))  # 3 steps an epoch
    torch.rand(7)
    train(settings(validation=0.2), tmp_path / "parts", resume="last")
    assert_equal_runs(whole, tmp_path / "parts")


def test_without_it_the_test_images_choose_and_a_run_of_an_earlier_version_resumes(tmp_path):
    result = train(settings(epochs=1), tmp_path / "run")
    assert result["best_chosen_on"] == "test"
    assert "validation_accuracy" not in timeless(tmp_path / "run")[0]
    file = RunFolder(tmp_path / "run").settings
    older = yaml.safe_load(file.read_text())
    del older["validation"]
    file.write_text(yaml.safe_dump(older))
    assert train(settings(epochs=1), tmp_path / "run", resume="last")["best_accuracy"] == result["best_accuracy"]


@pytest.mark.parametrize("amount", [0, -3, 0.0, 1.0, 1.5, np.nan])
def test_what_is_neither_a_share_nor_a_number_of_images_is_refused(amount):
    with pytest.raises(LocalLearnError, match="validation="):
        settings(validation=amount)


def test_training_stops_early_and_goes_on_with_equal_bits(tmp_path, monkeypatch, capsys):
    """With a rate of 0 only batch statistics change, so soon no epoch is better than those before."""
    monkeypatch.setattr("locallearn.training.result.draw_curves", lambda *_: None)
    asked = settings(validation=0.2, early_stopping=1, epochs=50, optimizer=SGD(lr=0.0), loggers=())
    told: list[str] = []
    result = train(asked, tmp_path / "run", say=told.append)
    accuracies = [row["validation_accuracy"] for row in timeless(tmp_path / "run")]
    best = accuracies.index(max(accuracies)) + 1
    assert (result["epochs"], result["best_epoch"], result["stopped_early"]) == (best + 1, best, True)
    event = {"epoch": best + 2, "step": 0, "stopped_early": {"best_epoch": best}}
    assert json.loads((tmp_path / "run/history.json").read_text()) == [event]
    assert f"stopped early after epoch {best + 1}: no better validation accuracy since epoch {best}." in told
    with pytest.raises(Interrupted):
        train(asked, tmp_path / "parts", watcher=StopAfter(4))
    assert train(asked, tmp_path / "parts", resume="last")["epochs"] == best + 1
    assert_equal_runs(tmp_path / "run", tmp_path / "parts")
    resume = ["train", "--resume", str(tmp_path / "parts"), "--trust-code"]
    assert run(*resume, "--epochs", "60") == 1
    assert "stopped early: its last 1 epoch brought no better one on the validation images" in capsys.readouterr().err
    assert_equal_runs(tmp_path / "run", tmp_path / "parts")
    assert json.loads((tmp_path / "parts/result.json").read_text())["epochs"] == best + 1
    assert run(*resume, "--epochs", "60", "--early-stopping", "2") == 0
    assert len(timeless(tmp_path / "parts")) > best + 1
    assert RunFolder(tmp_path / "parts").changed_settings == ["early_stopping", "epochs"]


def test_early_stopping_on_test_images_is_refused():
    with pytest.raises(LocalLearnError, match="hold out validation images, as by --validation"):
        settings(early_stopping=3)

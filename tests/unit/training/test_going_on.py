"""Runs that go on with more epochs, another learning rate or schedule."""

from __future__ import annotations

import json

import pytest
from command_line import run
from small_runs import loop_of, settings, timeless

from locallearn import LocalLearnError
from locallearn.training import SGD, Constant, RunFolder, load_checkpoint, train

MORE = settings(epochs=4, optimizer=SGD(lr=0.01), schedule=Constant())
CHANGING = {"epochs", "optimizer", "schedule"}


def test_a_finished_run_goes_on_and_says_so(finished, copied):
    told = []
    result = train(MORE, copied, resume="last", changing=CHANGING, say=told.append)
    rows = timeless(copied)
    assert rows[:2] == timeless(finished)
    assert [row["lr"] for row in rows[2:]] == [0.01, 0.01]
    assert (result["epochs"], len(rows)) == (4, 4)
    (entry,) = json.loads((copied / "history.json").read_text())
    assert (entry["epoch"], entry["step"]) == (3, 0)
    assert entry["changes"].keys() == CHANGING
    assert entry["changes"]["epochs"] == {"before": 2, "now": 4}
    assert told == ["epochs and optimizer and schedule changed from step 1 of epoch 3 on: history.json says so."]
    RunFolder(copied).refuse_other_settings(MORE)


def test_the_state_that_it_goes_on_from_has_the_same_bits(copied):
    loop = loop_of(MORE, copied)
    loop.resume()
    saved = load_checkpoint(copied / "last.pt")["net"]
    assert all((value == saved[name]).all() for name, value in loop.net.state_dict().items())


def test_a_run_without_epochs_to_go_stays_as_it_was(copied):
    before = {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()}
    with pytest.raises(LocalLearnError, match="has trained its 2 epochs: give more by --epochs"):
        train(settings(epochs=2, schedule=Constant()), copied, resume="last", changing=CHANGING)
    with pytest.raises(LocalLearnError, match="is of epoch 3, step 0, and the run has 1 epochs"):
        train(settings(epochs=1), copied, resume="last", changing=CHANGING)
    with pytest.raises(LocalLearnError, match="holds a run with other settings"):
        train(settings(epochs=4, batch=16), copied, resume="last", changing=CHANGING)
    assert {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()} == before


def test_the_command_changes_what_it_names_alone(copied, capsys):
    resume = ["train", "--resume", str(copied), "--trust-code"]
    for others in (["--batch", "3"], ["--optimizer", "AdamW"], ["--optimizer.momentum", "0.5", "--epochs", "3"]):
        assert run(*resume, *others) == 1
        assert "leave out the other options" in capsys.readouterr().err
    assert run(*resume, "--epochs", "3", "--optimizer.lr=0.1") == 0
    (entry,) = json.loads((copied / "history.json").read_text())
    assert entry["changes"].keys() == {"epochs", "optimizer"}
    optimizer = RunFolder(copied).read_settings()["optimizer"]
    assert optimizer["init_args"] == {**entry["changes"]["optimizer"]["before"]["init_args"], "lr": 0.1}

"""Runs that go on with more epochs, another learning rate or schedule."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run
from small_runs import StopAfter, assert_equal_runs, loop_of, settings, timeless

import locallearn as ll
from locallearn import LocalLearnError
from locallearn.training import SGD, Constant, Interrupted, RunFolder, load_checkpoint, train

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
    folder = RunFolder(copied)
    folder.refuse_other_settings(MORE)
    assert folder.changed_settings == sorted(CHANGING)
    with pytest.raises(LocalLearnError, match="epochs and optimizer and schedule changed on the way"):
        folder.refuse_reuse(MORE)
    assert json.loads(folder.environment.read_text())["repeat"].startswith("no single command")


def test_other_settings_are_named_with_both_values(copied):
    other = settings(epochs=2, batch=16, optimizer=SGD(lr=0.1), rule=ll.BP(), workers=9)
    with pytest.raises(LocalLearnError) as error:
        RunFolder(copied).refuse_reuse(other)
    assert "other settings (batch 32, not 16; optimizer.lr 0.05, not 0.1; rule DGL, not BP): choose" in str(error.value)


@pytest.mark.parametrize("damage", ["3", "[3]", '[{"changes": 3}]'])
def test_a_damaged_history_is_told(damage, copied):
    (copied / "history.json").write_text(damage)
    with pytest.raises(LocalLearnError, match=r"history\.json is damaged: it must be a list of events"):
        _ = RunFolder(copied).changed_settings


def test_a_finished_run_that_goes_back_is_unfinished_until_it_is_over_again(finished, copied):
    (copied / "result.json").touch()
    with pytest.raises(Interrupted):
        train(settings(epochs=2), copied, resume="previous", watcher=StopAfter(1))
    assert not (copied / "result.json").exists()
    assert timeless(copied) == timeless(finished)[:1]
    assert json.loads((copied / "history.json").read_text()) == [{"epoch": 2, "step": 0, "from": "previous"}]
    train(settings(epochs=2), copied, resume="last")
    assert_equal_runs(finished, copied)
    RunFolder(copied).refuse_reuse(settings(epochs=2))


@pytest.mark.parametrize(("accuracies", "stays"), [((0.5, 0.4, 0.4), True), ((0.5, 0.4, 0.6), False)])
def test_the_checkpoint_of_a_best_epoch_that_is_trained_again_goes(accuracies, stays, tmp_path):
    folder = RunFolder(tmp_path)
    rows = [{"epoch": epoch, "test_accuracy": value} for epoch, value in enumerate(accuracies, 1)]
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder.best.touch()
    folder.begin(3)
    assert folder.best.exists() == stays
    assert folder.rows() == rows[:2]


def test_the_state_that_it_goes_on_from_has_the_same_bits(copied):
    loop = loop_of(MORE, copied)
    loop.resume()
    saved = load_checkpoint(copied / "last.pt")["net"]
    assert all((value == saved[name]).all() for name, value in loop.net.state_dict().items())


def test_a_run_without_epochs_to_go_stays_as_it_was(copied):
    before = {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()}
    with pytest.raises(
        LocalLearnError, match="has trained its 2 epochs, so a change of schedule has no effect: give more by --epochs"
    ):
        train(settings(epochs=2, schedule=Constant()), copied, resume="last", changing=CHANGING)
    with pytest.raises(LocalLearnError, match="has trained its 1 epoch, so a change of epochs has no effect"):
        train(settings(epochs=1), copied, resume="previous", changing=CHANGING)
    with pytest.raises(LocalLearnError, match="has trained 2 epochs, and epochs=1 takes none back: give at least 2"):
        train(settings(epochs=1), copied, resume="last", changing=CHANGING)
    with pytest.raises(LocalLearnError, match="holds a run with other settings"):
        train(settings(epochs=4, batch=16), copied, resume="last", changing=CHANGING)
    optimizer = replace(settings().optimizer, lr=0.01, weight_decay=0.5)
    with pytest.raises(LocalLearnError, match=r"of which only lr can change \(optimizer.lr .* optimizer.weight_decay"):
        train(settings(epochs=4, optimizer=optimizer), copied, resume="last", changing=CHANGING)
    assert {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()} == before


def test_the_command_changes_what_it_names_alone(copied, capsys):
    resume = ["train", "--resume", str(copied), "--trust-code"]
    for option, *others in (
        ["--batch", "3"],
        ["--batch", "128"],  # what is given is refused, also where it is the default
        ["--rule", "auglocal", "--epochs", "3"],
        ["--optimizer", "sgd"],
        ["--optimizer.momentum=0.9", "--epochs", "3"],
        ["--dry-run"],
    ):
        assert run(*resume, option, *others) == 1
        assert f"leave out {option.partition('=')[0]}; only --epochs, --optimizer.lr," in capsys.readouterr().err
    assert run(*resume, "--early-stopping", "1") == 1
    assert "holds out no validation images, which --early-stopping needs: leave it out" in capsys.readouterr().err
    assert timeless(copied)[-1]["epoch"] == 2
    assert run(*resume, "--epochs", "3", "--optimizer.lr=0.1") == 0
    (entry,) = json.loads((copied / "history.json").read_text())
    assert entry["changes"].keys() == {"epochs", "optimizer"}
    optimizer = RunFolder(copied).read_settings()["optimizer"]
    assert run(*resume, "--schedule", "constant", "--epochs", "4") == 0
    assert run(*resume, "--schedule.warmup", "0.5", "--epochs", "5") == 1
    assert "the run has the schedule Constant, and the options are of Cosine" in capsys.readouterr().err
    assert optimizer["init_args"] == {**entry["changes"]["optimizer"]["before"]["init_args"], "lr": 0.1}


def test_a_run_goes_on_where_data_lie_elsewhere_and_is_still_repeatable(copied, tmp_path, capsys):
    resume = ["train", "--resume", str(copied), "--trust-code", "--data-dir", str(tmp_path)]
    assert run(*resume, "--workers", "7") == 0
    folder = RunFolder(copied)
    assert {name: folder.read_settings()[name] for name in ("data_dir", "workers")} == {
        "data_dir": str(tmp_path),
        "workers": 7,
    }
    assert folder.events() == [], "no result depends on these"
    assert run("train", "--resume", str(copied), "--trust-code", "--epochs", "3", "--threads", "2") == 0
    assert folder.changed_settings == ["epochs", "threads"]
    assert folder.read_settings()["workers"] == 7


def test_a_run_goes_on_in_less_memory_with_the_same_bits(copied, tmp_path):
    fast = Path(shutil.copytree(copied, tmp_path / "fast"))
    for folder, options in ((fast, ()), (copied, ("--memory", "least"))):
        assert run("train", "--resume", str(folder), "--trust-code", "--epochs", "4", *options) == 0
    assert RunFolder(copied).changed_settings == ["epochs", "memory"]
    assert_equal_runs(fast, copied)

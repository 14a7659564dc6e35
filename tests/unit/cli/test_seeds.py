"""`--seeds` of train, compare and reproduce, and `--name`."""

from __future__ import annotations

import json
import statistics

import pytest
from command_line import result_of, run
from small_runs import settings

from locallearn import LocalLearnError
from locallearn.cli.seeds import Asked, seeds_of, train_missing
from locallearn.recipes import workers
from locallearn.training import RunFolder, as_yaml

SMALL = ["--model", "small_runs.little", "--data", "small_runs.stripes", "--rule", "bp", "--epochs", "1"]
FAST = ["--loggers", "[]"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (None, [5]),
        (["3"], [5, 6, 7]),
        (["0", "4"], [0, 4]),
        (["0,1,2"], [0, 1, 2]),
        (["[0,", "4]"], [0, 4]),
        (["[3]"], [3]),
        (["3,"], [3]),
    ],
)
def test_a_number_or_a_list_of_seeds(words, expected):
    assert seeds_of(words, 5) == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["0"], "--seeds 0: give at least 1, or a list such as --seeds 0 1 2."),
        (["[]"], "--seeds []: give at least 1"),
        (["[0"], "--seeds [0: give how many, as 3, or a list of whole numbers"),
        (["two"], "--seeds two: give how many, as 3, or a list of whole numbers"),
        (["0,0"], "--seeds 0,0 names a seed twice: leave one out."),
        (["0", "4294967296"], "seed=4294967296 must be at least 0 and below"),
    ],
)
def test_what_is_no_seed_is_refused(words, told):
    with pytest.raises(LocalLearnError) as error:
        seeds_of(words)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--seeds 0 1 --seed 3", "--seeds 0 1 names the seeds: leave out --seed"),
        ("--seeds 2 --resume runs/a", "--seeds goes on with its runs by itself"),
        ("--seeds 2 --parallel data", "--seeds trains in one process"),
        ("--seeds 2 --name a --out b", "--out and --name both say where the run goes: give one of them."),
        ("--jobs 2", "--jobs goes with --seeds: a single run has no others beside it."),
        ("--seeds 2 --jobs 0", "--jobs 0 must be at least 1."),
        ("--name a/b", "--name 'a/b' is no name of a folder under runs/: give a path by --out."),
        ("--resume runs/a --name b", "--resume takes all settings from the run it continues"),
    ],
)
def test_options_that_conflict_are_refused(options, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", *SMALL[2:], *options.split()) == 1
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_train_prints_every_value_their_mean_and_deviation_and_uses_runs_again(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("locallearn.training.result.draw_curves", lambda *_: None)
    found = result_of(capsys, "train", *SMALL, *FAST, "--seeds", "2", "--name", "both")
    values = found["test_accuracies"]
    assert found["seeds"] == [0, 1]
    assert found["test_accuracy"] == pytest.approx(statistics.fmean(values))
    assert found["test_accuracy_deviation"] == pytest.approx(statistics.stdev(values))
    assert found["folders"] == [str(tmp_path / "runs/both" / name) for name in ("seed0", "seed1")]
    assert json.loads((tmp_path / "runs/both/seeds.json").read_text()) == found

    for path, told in (
        ("runs/both", "it holds run folders; give one, as runs/both/seed0."),
        ("runs/both/seed1/last.pt", "it is no folder; give the run folder, runs/both/seed1."),
    ):
        assert run("train", "--resume", path) == 1
        assert f"{path} holds no run: {told}" in capsys.readouterr().err

    monkeypatch.setattr(workers, "train", None)  # nothing is left to train
    assert run("train", *SMALL, *FAST, "--seeds", "[1,0]", "--name", "both") == 0
    shown = capsys.readouterr()
    assert "already finished in runs/both/seed1" in shown.err
    assert f"{100 * statistics.fmean(values):.2f} ± {100 * statistics.stdev(values):.2f} %" in shown.out
    assert all(f"{value:.2%}" in shown.out for value in values)
    assert run("train", *SMALL, "--batch", "8", "--seeds", "3", "--name", "both") == 1
    assert "holds a run with other settings (batch 128, not 8)" in capsys.readouterr().err
    assert not (tmp_path / "runs/both/seed2").exists()

    again = ["train", *SMALL, "--seeds", "2", "--name", "both", "--workers", "9", *FAST]
    assert run(*again) == 0
    assert "already finished in runs/both/seed0" in capsys.readouterr().err, "no result depends on workers"
    RunFolder(tmp_path / "runs/both/seed1").add_history({"epoch": 1, "step": 1, "changes": {"schedule": {}}})
    assert run(*again) == 1
    assert "runs/both/seed1 holds a run whose schedule changed on the way" in capsys.readouterr().err
    assert run("train", *SMALL, *FAST, "--seeds", "2", "--out", "runs/both/seed0") == 1
    assert "runs/both/seed0 holds a run, not run folders: choose another folder by --out" in capsys.readouterr().err


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    begun, new = (Asked(name=name, settings=settings(), folder=RunFolder(tmp_path / name)) for name in "ab")
    begun.folder.path.mkdir()
    begun.folder.settings.write_text(as_yaml(begun.settings))
    calls = []
    monkeypatch.setattr(
        workers, "train", lambda one, folder, *, resume, **_: calls.append((folder.name, resume, one.workers))
    )
    asked = [Asked(name=one.name, settings=settings(workers=9), folder=one.folder) for one in (begun, new)]
    train_missing(asked, jobs=1, again="the same command")
    assert calls == [("a", "last", 9), ("b", None, 9)], "what goes on takes it from the command"

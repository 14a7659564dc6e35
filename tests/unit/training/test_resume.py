"""A run that is stopped anywhere and resumed equals one that was not, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import StopAfter, assert_equal_runs, loop_of, settings, timeless

import locallearn as ll
from locallearn import LocalLearnError
from locallearn.cli.main import main
from locallearn.training import AdamW, Interrupted, RunFolder, load_checkpoint, save_checkpoint, train

VARIANTS = {
    "bp": {"rule": ll.BP()},
    "checkpointing": {"rule": ll.Checkpoint()},
    "auglocal": {"rule": ll.AugLocal(depth=2)},
    "step by module": {"step": "module", "clip_module_norm": 1.0},
    "adamw, micro-batches, heads": {"optimizer": AdamW(), "accumulate": 2, "eval_heads": True, "clip_norm": 1.0},
    "bf16": {"precision": "bf16"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(settings(), folder)
    return folder


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    """A copy of it, to damage."""
    return shutil.copytree(whole, tmp_path / "run")


def test_a_run_stopped_twice_and_resumed_changes_no_bit(whole, tmp_path):
    with pytest.raises(Interrupted):
        train(settings(), tmp_path / "parts", watcher=StopAfter(6))  # 4 steps an epoch: in the second one
    with pytest.raises(Interrupted):
        train(settings(), tmp_path / "parts", resume=True, watcher=StopAfter(1))
    torch.rand(7)  # a new process has other random numbers
    train(settings(), tmp_path / "parts", resume=True)
    assert_equal_runs(whole, tmp_path / "parts")


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopping_in_mid_epoch_and_resuming_changes_no_bit(variant, tmp_path):
    asked = settings(**VARIANTS[variant], epochs=2)
    train(asked, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(asked, tmp_path / "parts", watcher=StopAfter(6))
    torch.rand(7)
    train(asked, tmp_path / "parts", resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_run_may_be_stopped_at_any_step(stop, whole, tmp_path):
    with pytest.raises(Interrupted):
        loop_of(settings(), tmp_path / "parts", StopAfter(stop)).run()
    rest = loop_of(settings(), tmp_path / "parts")
    rest.resume()
    rest.run()
    assert_equal_runs(whole, tmp_path / "parts")


@pytest.mark.parametrize(("kill", "lines"), [(1, None), (2, 1), (3, 1)])
def test_a_kill_at_the_first_checkpoints_leaves_no_second_line(kill, lines, whole, tmp_path, monkeypatch):
    saved = []

    def killed(state, path):  # last.pt before the first step, then best.pt and last.pt
        saved.append(path)
        if len(saved) == kill:
            raise KeyboardInterrupt
        save_checkpoint(state, path)

    with monkeypatch.context() as patched:
        patched.setattr("locallearn.training.loop.save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings(), tmp_path / "parts")
    metrics = tmp_path / "parts" / "metrics.jsonl"
    assert (len(timeless(tmp_path / "parts")) if metrics.exists() else None) == lines
    train(settings(), tmp_path / "parts", resume=True)
    assert_equal_runs(whole, tmp_path / "parts")


def test_resuming_another_run_than_asked_is_refused(copied, tmp_path):
    with pytest.raises(LocalLearnError, match="holds no run"):
        train(settings(), tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(LocalLearnError, match="holds a run with other settings"):
        train(settings(epochs=2), copied, resume=True)


def test_a_kill_after_an_epochs_metrics_and_before_its_checkpoint_repeats_the_epoch(whole, tmp_path, monkeypatch):
    saved = []

    def save_first_epoch(state, path):  # last.pt before the first step, then best.pt and last.pt
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(path)
        save_checkpoint(state, path)

    with monkeypatch.context() as patched:
        patched.setattr("locallearn.training.loop.save_checkpoint", save_first_epoch)
        with pytest.raises(KeyboardInterrupt):
            loop_of(settings(), tmp_path / "parts").run()
    assert len(timeless(tmp_path / "parts")) == 2, "the second epoch's line is there without its checkpoint"
    rest = loop_of(settings(), tmp_path / "parts")
    rest.resume()
    rest.run()
    assert_equal_runs(whole, tmp_path / "parts")


def test_checkpoints_within_an_epoch_change_no_bit(whole, tmp_path):
    loop_of(settings(checkpoint_every=3), tmp_path / "run").run()
    assert_equal_runs(whole, tmp_path / "run")


def test_a_run_killed_before_its_first_checkpoint_starts_anew_on_resume(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("locallearn.training.run.Fit.run", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(settings(), tmp_path / "parts")
    train(settings(), tmp_path / "parts", resume=True)
    assert_equal_runs(whole, tmp_path / "parts")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("spoil", [Path.unlink, flip_a_byte])
@pytest.mark.parametrize("offered", ["prev", "best", None])
def test_a_missing_or_damaged_checkpoint_stops_the_resume_and_a_whole_one_is_offered(spoil, offered, copied):
    spoil(copied / "last.pt")
    if offered != "prev":
        spoil(copied / "last.prev.pt")
    if offered is None:
        spoil(copied / "best.pt")
    before = bytes_of(copied)
    with pytest.raises(LocalLearnError) as told:
        train(settings(), copied, resume=True)
    assert ("there is no checkpoint" if spoil is Path.unlink else "is damaged") in str(told.value)
    offer = f"--resume {copied} --from {offered} goes on" if offered else "train anew in another folder"
    assert offer in str(told.value)
    assert bytes_of(copied) == before


@pytest.mark.parametrize("checkpoint", ["prev", "best"])
def test_a_run_goes_on_from_an_earlier_checkpoint_bit_for_bit(checkpoint, whole, copied):
    flip_a_byte(copied / "last.pt")
    train(settings(), copied, resume=True, checkpoint=checkpoint)
    assert_equal_runs(whole, copied)


def test_metrics_later_than_an_earlier_checkpoint_are_dropped_with_last_put_back_first(whole, copied):
    epoch = load_checkpoint(copied / "last.prev.pt")["epoch"]
    assert epoch == 3
    with pytest.raises(Interrupted):
        train(settings(), copied, resume=True, checkpoint="prev", watcher=StopAfter(1))
    assert timeless(copied) == timeless(whole)[: epoch - 1]
    last = load_checkpoint(copied / "last.pt")
    assert (last["epoch"], last["step"]) == (epoch, 1)
    train(settings(), copied, resume=True)
    assert_equal_runs(whole, copied)


def test_an_earlier_checkpoint_is_asked_for_on_the_command_line(whole, copied, capsys):
    assert main(["train", "--from", "best"]) == 1
    assert "give --resume RUN too" in capsys.readouterr().err
    (copied / "last.pt").unlink()
    assert main(["train", "--resume", str(copied), "--trust-code"]) == 1
    assert f"--resume {copied} --from prev goes on from it" in capsys.readouterr().err
    assert main(["train", "--resume", str(copied), "--from", "best", "--trust-code"]) == 0
    assert_equal_runs(whole, copied)


def test_a_run_without_any_checkpoint_does_not_start_anew_over_its_metrics(copied):
    for name in ("last", "last.prev", "best"):
        (copied / f"{name}.pt").unlink()
    before = bytes_of(copied)
    with pytest.raises(LocalLearnError, match=r"there is no checkpoint .*last.pt. No other checkpoint of the run is w"):
        train(settings(), copied, resume=True)
    assert bytes_of(copied) == before


def test_a_folder_that_holds_a_run_is_not_overwritten(copied):
    before = (copied / "metrics.jsonl").read_text()
    with pytest.raises(LocalLearnError, match="holds a run already: go on with it by --resume"):
        train(settings(), copied)
    assert (copied / "metrics.jsonl").read_text() == before


def test_best_holds_the_checkpoint_of_the_highest_accuracy(whole):
    rows = RunFolder(whole).rows()
    best = load_checkpoint(whole / "best.pt")
    assert best["best"] == max(row["test_accuracy"] for row in rows)
    assert rows[best["epoch"] - 2]["test_accuracy"] == best["best"]


def test_the_run_folder_says_all(tmp_path):
    result = train(settings(epochs=2), tmp_path / "run")
    names = {path.name.split(".")[0] for path in (tmp_path / "run").iterdir()}
    assert names == {"settings", "environment", "data", "metrics", "events", "last", "best", "result", "curves"}
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["repeat"].startswith("locallearn train --config")
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert result["best_accuracy"] == max(row["test_accuracy"] for row in RunFolder(tmp_path / "run").rows())
    assert result["peak_activation_bytes"] < result["peak_total_bytes"]
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")

"""A run that is stopped anywhere and resumed equals one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import StopAfter, assert_equal_runs, loop_of, settings, timeless

import locallearn as ll
from locallearn import LocalLearnError
from locallearn._figures.style import save
from locallearn.cli import main
from locallearn.training import AdamW, Interrupted, RunFolder, load_checkpoint, save_checkpoint, train
from locallearn.training.files.lock import exclusive
from locallearn.training.files.optimizer_state import joined_states, load_named_state, named_state

VARIANTS = {
    "bp": {"rule": ll.BP()},
    "checkpointing": {"rule": ll.Checkpoint()},
    "auglocal": {"rule": ll.AugLocal(depth=2)},
    "step by module": {"step": "module", "clip_module_norm": 1.0},
    "adamw, micro-batches, heads": {"optimizer": AdamW(), "accumulate": 2, "eval_heads": True, "clip_norm": 1.0},
    "bf16": {"precision": "bf16"},
    "soft labels of PredSim": {"rule": ll.PredSim(), "label_smoothing": 0.1, "mixup": 0.2, "accumulate": 2},
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
        train(settings(), tmp_path / "parts", resume="last", watcher=StopAfter(1))
    torch.rand(7)  # a new process has other random numbers
    train(settings(), tmp_path / "parts", resume="last")
    assert_equal_runs(whole, tmp_path / "parts")


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopping_in_mid_epoch_and_resuming_changes_no_bit(variant, tmp_path):
    asked = settings(**VARIANTS[variant], epochs=2)
    train(asked, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(asked, tmp_path / "parts", watcher=StopAfter(6))
    torch.rand(7)
    train(asked, tmp_path / "parts", resume="last")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_run_may_be_stopped_at_any_step(stop, whole, tmp_path):
    with pytest.raises(Interrupted):
        loop_of(settings(), tmp_path / "parts", StopAfter(stop)).run()
    rest = loop_of(settings(), tmp_path / "parts")
    rest.resume()
    rest.run()
    assert_equal_runs(whole, tmp_path / "parts")


@pytest.mark.parametrize("kill", [1, 2, 3])
def test_a_kill_at_the_first_checkpoints_leaves_no_second_line(kill, whole, tmp_path, monkeypatch):
    saved = []

    def killed(state, path, **options):  # last.pt before the first step, then best.pt and last.pt
        saved.append(path)
        if len(saved) == kill:
            raise KeyboardInterrupt
        save_checkpoint(state, path, **options)

    with monkeypatch.context() as patched:
        patched.setattr("locallearn.training.loop.save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings(), tmp_path / "parts")
    assert (tmp_path / "parts" / "metrics.jsonl").exists() == (kill > 1)
    train(settings(), tmp_path / "parts", resume="last")
    assert_equal_runs(whole, tmp_path / "parts")


def test_resuming_another_run_than_asked_is_refused(copied, tmp_path):
    with pytest.raises(LocalLearnError, match="holds no run"):
        train(settings(), tmp_path / "nothing", resume="last")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(LocalLearnError, match="holds a run with other settings"):
        train(settings(epochs=2), copied, resume="last")


def test_a_kill_after_an_epochs_metrics_and_before_its_checkpoint_repeats_the_epoch(whole, tmp_path, monkeypatch):
    saved = []

    def save_first_epoch(state, path, **options):  # last.pt before the first step, then best.pt and last.pt
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(path)
        save_checkpoint(state, path, **options)

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
    train(settings(), tmp_path / "parts", resume="last")
    assert_equal_runs(whole, tmp_path / "parts")


def test_state_of_one_optimizer_is_that_of_one_for_each_module(tmp_path):
    with pytest.raises(Interrupted):
        (fit := loop_of(settings(), tmp_path / "parts", StopAfter(2))).run()
    together = named_state(fit.net, fit.stepper.optimizers)
    by_module = settings(step="module").make_stepper(fit.net)
    assert len(by_module.optimizers) == 3
    load_named_state(fit.net, by_module.optimizers, together)
    states = [named_state(fit.net, [optimizer]) for optimizer in by_module.optimizers]
    assert joined_states(states)["state"].keys() == together["state"].keys()
    for parameter, entries in fit.stepper.optimizers[0].state.items():
        (optimizer,) = [one for one in by_module.optimizers if parameter in one.state]
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], entries["momentum_buffer"])
    with_empty = torch.optim.SGD([{"params": fit.net.parameters()}, {"params": [], "lr": 0.3}], lr=0.1, momentum=0.9)
    load_named_state(fit.net, [with_empty], together)
    assert with_empty.param_groups[1]["lr"] == 0.3, "of a group without parameters nothing is saved"


def test_a_damaged_checkpoint_stops_the_resume(copied):
    last = copied / "last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    with pytest.raises(LocalLearnError, match="is damaged"):
        train(settings(), copied, resume="last")


MOMENTUM = torch.zeros(8, 3, 3, 3)


def with_momentum(buffer):
    """Another momentum of the first parameter."""

    def changed(state):
        optimizers = state["optimizers"]
        entries = {**optimizers["state"], "model.0.weight": {"momentum_buffer": buffer}}
        return {**state, "optimizers": {**optimizers, "state": entries}}

    return changed


def test_momentum_whose_elements_overlap_in_memory_does_not(copied):
    state = load_checkpoint(copied / "last.prev.pt")
    overlapping = torch.zeros(1, 1, 1, 1).expand_as(MOMENTUM)  # a fused step would write outside of its one element
    save_checkpoint(with_momentum(overlapping)(state), copied / "last.pt")
    fit = loop_of(settings(), copied)
    fit.resume()
    (optimizer,) = fit.stepper.optimizers
    for parameter, entries in optimizer.state.items():
        assert entries["momentum_buffer"].untyped_storage().nbytes() >= parameter.numel() * 4


OTHER_CONTENT = {
    "an entry is missing": (lambda state: {**state, "seen": ...}, "lacks the entry 'seen', unlike any of locallearn's"),
    "another entry": (lambda state: {**state, "more": 1}, "has the entry 'more', unlike any of locallearn's"),
    "another type": (lambda state: {**state, "epoch": "2"}, "has a str as epoch"),
    "another version": (lambda state: {**state, "format": 99}, "has the format 99, not 3: another version"),
    "a step that is not there": (lambda state: {**state, "step": 999}, r"is of epoch 4, step 999, and the run has"),
    "an epoch that is not there": (lambda state: {**state, "epoch": 9}, "8 epochs, and epochs=3 takes none"),
    "another optimizer": (
        lambda state: {**state, "optimizers": {**state["optimizers"], "param_groups": [
            {"lr": 1e-3, "betas": (0.9, 0.99), "params": state["optimizers"]["param_groups"][0]["params"]}
        ]}},
        "has the state of another optimizer",
    ),
    "no optimizers": (lambda state: {**state, "optimizers": {}}, "has optimizers or random numbers that do not fit"),
    "fewer parameters": (
        lambda state: {**state, "optimizers": {**state["optimizers"], "param_groups": [
            {**state["optimizers"]["param_groups"][0], "params": ["model.0.weight"]}
        ]}},
        "has optimizers or random numbers that do not fit",
    ),
    "no random state": (lambda state: {**state, "random": {}}, "has optimizers or random numbers that do not fit"),
    "other weights": (lambda state: {**state, "net": {"w": torch.ones(2)}}, "do not fit the network"),
    "no weights": (lambda state: {**state, "net": {"model.0.weight": [1]}}, "do not fit the network"),
    "weights without a name": (lambda state: {**state, "net": {3: torch.ones(2)}}, "other things than those of type"),
    "texts as sums": (lambda state: {**state, "sums": ["1"]}, "other things than those of type float in sums"),
    "a step without sums": (lambda state: {**state, "epoch": 3, "step": 1}, "has 0 sums of 0 images at step 1, not 3"),
    "sums without a step": (lambda state: {**state, "sums": [1.0], "seen": 3}, "has 1 sums of 3 images at step 0"),
    "a step after the last epoch": (
        lambda state: {**state, "step": 1, "sums": [1.0], "seen": 32}, "is of epoch 4, step 1, and the run has"
    ),
    "fewer losses": (
        lambda state: {**state, "epoch": 3, "step": 1, "sums": [1.0], "seen": 32}, "has 1 sums of 32 images at step 1"
    ),
    "momentum of another shape": (with_momentum(torch.zeros(2)), "has optimizers or random numbers that do not fit"),
    "momentum that is a text": (with_momentum("x"), "has optimizers or random numbers that do not fit"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_CONTENT)
def test_a_checkpoint_with_a_right_hash_and_other_content_is_refused(case, copied):
    changed, told = OTHER_CONTENT[case]
    state = changed(load_checkpoint(copied / "last.pt"))
    state = {name: value for name, value in state.items() if value is not ...}
    save_checkpoint(state, copied / "last.pt")
    rows = (copied / "metrics.jsonl").read_text()
    with pytest.raises(LocalLearnError, match=rf"last.pt.* {told}"):
        train(settings(), copied, resume="last")
    assert (copied / "metrics.jsonl").read_text() == rows


@pytest.mark.parametrize("checkpoint", ["previous", "best"])
def test_another_checkpoint_is_offered_and_gives_the_same_run(checkpoint, whole, copied):
    (copied / "last.pt").unlink()
    rows = (copied / "metrics.jsonl").read_text()
    beside = r"last.prev.pt and best.pt \(--resume .* --from previous or best\)\.$"
    offer = rf"the checkpoint .*last.pt is missing; beside it lies {beside}"
    with pytest.raises(LocalLearnError, match=offer):
        train(settings(), copied, resume="last")
    assert (copied / "metrics.jsonl").read_text() == rows
    train(settings(), copied, resume=checkpoint)
    assert_equal_runs(whole, copied)


def test_only_whole_checkpoints_are_offered(copied):
    (copied / "last.pt").unlink()
    (copied / "last.prev.pt").write_bytes(b"half")
    beside = r"best.pt \(--resume .* --from best\)\.$"
    with pytest.raises(LocalLearnError, match=rf"last.pt is missing; beside it lies {beside}"):
        train(settings(), copied, resume="last")
    (copied / "best.pt").unlink()
    with pytest.raises(LocalLearnError, match=r"last.pt is missing\.$"):
        train(settings(), copied, resume="last")


def test_a_run_of_one_epoch_that_lost_its_last_checkpoint_does_not_start_anew(tmp_path):
    asked, folder = settings(epochs=1), tmp_path / "run"
    train(asked, folder)
    (folder / "last.pt").unlink()
    (folder / "last.prev.pt").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    beside = r"best.pt \(--resume .* --from best\)"
    with pytest.raises(LocalLearnError, match=rf"last.pt is missing; beside it lies {beside}"):
        train(asked, folder, resume="last")
    with pytest.raises(LocalLearnError, match=r"last.prev.pt is missing"):
        train(asked, folder, resume="previous")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    train(asked, folder, resume="best")
    assert (folder / "metrics.jsonl").read_bytes() == before["metrics.jsonl"]  # with its seconds: not trained again


def test_from_needs_resume(capsys):
    assert main(["train", "--from", "best"]) == 1
    assert "--from best goes with --resume RUN" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{}\n", "3\n", '{"epoch": 2}\n'])
def test_metrics_without_the_epochs_of_the_checkpoint_are_told(content, copied):
    (copied / "metrics.jsonl").write_text(content)
    with pytest.raises(LocalLearnError, match=r"metrics.jsonl (lacks some of the 3 epochs|is damaged)"):
        train(settings(), copied, resume="last")


def test_two_processes_cannot_train_in_one_folder(copied):
    with exclusive(copied):
        holder = json.loads((copied / "owner.json").read_text())
        assert holder["pid"] == os.getpid()
        with pytest.raises(LocalLearnError, match=rf"is in use by process {os.getpid()} on \S+: wait for it"):
            train(settings(), copied, resume="last")
    assert not (copied / "owner.json").exists()


def test_a_lock_of_a_process_that_died_is_free(whole, copied):
    code = "import os, sys; from pathlib import Path; from locallearn.training.files.lock import exclusive\n"
    code += "with exclusive(Path(sys.argv[1])): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(copied)], check=False).returncode == 9
    assert (copied / "owner.json").exists()
    train(settings(), copied, resume="last")
    assert_equal_runs(whole, copied)


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


def test_the_run_folder_says_all(tmp_path, monkeypatch):
    monkeypatch.setattr("locallearn.training.curves.save", save)
    result = train(settings(epochs=2), tmp_path / "run")
    names = {path.name.split(".")[0] for path in (tmp_path / "run").iterdir()}
    assert names == {"", "settings", "environment", "data", "metrics", "events", "last", "best", "result", "curves"}
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["repeat"].startswith("locallearn train --config")
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert result["best_accuracy"] == max(row["test_accuracy"] for row in RunFolder(tmp_path / "run").rows())
    assert result["peak_activation_bytes"] < result["peak_total_bytes"]
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")

"""Processes that come together or do not; here, one alone."""

from __future__ import annotations

import json
import socket

import pytest
import torch
from command_line import result_of, run
from small_runs import assert_equal_runs, loop_of, settings

from locallearn import LocalLearnError
from locallearn.training import train
from locallearn.training.processes.joining import joined_processes


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture
def torchrun(monkeypatch):
    """Sets what torchrun would."""

    def started(rank: int, count: int) -> None:
        names = {"RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        for name, value in names.items():
            monkeypatch.setenv(name, str(value))

    return started


def test_one_process_under_torchrun_trains_as_one_without(torchrun, tmp_path):
    loop_of(settings(epochs=1), tmp_path / "alone").run()
    torchrun(0, 1)
    train(settings(epochs=1, parallel="data", synchronise_statistics=False), tmp_path / "joined")
    assert not torch.distributed.is_initialized()
    assert_equal_runs(tmp_path / "alone", tmp_path / "joined")
    repeat = json.loads((tmp_path / "joined" / "environment.json").read_text())["repeat"]
    assert repeat.startswith("locallearn train")


def test_without_torchrun_its_command_is_told(tmp_path):
    with pytest.raises(LocalLearnError, match=r"start them by torchrun --nproc-per-node 2 -m locallearn train"):
        train(settings(parallel="data"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_torchrun_without_a_layout_is_refused(torchrun, tmp_path, capsys):
    torchrun(1, 2)
    assert run("train", "--data", "digits", "--model", "resnet20", "--out", str(tmp_path / "run")) == 1
    told = capsys.readouterr().err
    assert "error: process 1 of 2: torchrun started 2 processes, and each would train the same run" in told
    assert not (tmp_path / "run").exists()


def test_a_dry_run_shows_which_process_trains_which_modules(capsys):
    small = ("--data", "small_runs.stripes", "--model", "small_runs.plain", "--rule", "dgl", "--batch", "8")
    shown = result_of(capsys, "train", "--trust-code", *small, "--parallel", "modules=2,data=2", "--dry-run")
    assert (shown["layout"], shown["micro_batch"]) == ("modules=2,data=2", 4)
    first, second = shown["processes"]
    assert (first["processes"], second["processes"]) == ([0, 1], [2, 3])
    assert first["modules"][0] == 0
    assert first["modules"][1] + 1 == second["modules"][0]
    assert second["modules"][1] == 2
    assert max(row["share_of_slowest"] for row in shown["processes"]) == 1
    assert first["sent_bytes"] > second["sent_bytes"] == 0
    for parallel, told in (("data", "add --parallel modules=2"), ("modules", "needs the number of processes")):
        assert run("train", "--trust-code", *small, "--parallel", parallel, "--dry-run") == 1
        assert told in capsys.readouterr().err


def test_restarts_need_a_folder(torchrun, monkeypatch, capsys):
    torchrun(0, 2)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert run("train", "--data", "digits", "--parallel", "data") == 1
    assert "torchrun --max-restarts needs a run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rank", "told"),
    [
        (0, r"process 1 of 2 did not come to 127\.0\.0\.1:\d+ within 1 s \(parallel_timeout\)"),
        (1, r"127\.0\.0\.1:\d+, where the processes meet \(MASTER_ADDR, MASTER_PORT\), cannot be reached within 1 s"),
    ],
)
def test_processes_that_do_not_meet_say_where_and_why(rank, told, torchrun):
    torchrun(rank, 2)
    with pytest.raises(LocalLearnError, match=told), joined_processes("data", torch.device("cpu"), timeout=1):
        pass


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"synchronise_statistics": True}, "goes with several processes: add --parallel data"),
        ({"parallel": "date"}, "is no layout"),
        ({"parallel": "data", "cuda_graphs": True}, "cuda_graphs does not share gradients"),
        ({"parallel": "data", "overlap": 1}, "overlap=1 goes with one process alone"),
        ({"parallel": "data", "synchronise_statistics": True, "memory": "lean"}, "does not work with memory=lean"),
        ({"parallel_timeout": 0.5}, "parallel_timeout=0.5 must be at least 1 s"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes, told):
    with pytest.raises(LocalLearnError, match=told):
        settings(**changes)

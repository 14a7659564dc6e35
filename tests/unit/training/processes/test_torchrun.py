"""Whole runs in several processes that torchrun starts: equal to one process, stopped, killed, and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_runs import assert_equal_runs, timeless

from locallearn.training import load_checkpoint
from locallearn.training.loggers import numbers_of

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).parents[3] / "support"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
TORCHRUN = ("-m", "torch.distributed.run")
EPOCHS = 12
SMALL = ("--model", "small_runs.little", "--data", "small_runs.stripes", "--rule", "dgl", "--batch", "17")


@contextmanager
def started(*words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process of Python, killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, *words],
        env=ENVIRONMENT | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def words(folder: Path, *options: str, processes: int = 2, torchrun: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A run of `train` by torchrun."""
    start = (*TORCHRUN, "--standalone", "--nproc-per-node", str(processes), *torchrun, "-m", "locallearn")
    return (*start, "train", *SMALL, "--epochs", str(EPOCHS), "--out", str(folder), *options)


def trained(*words: str) -> str:
    """What a process that succeeds tells on standard error."""
    with started(*words) as process:
        _, told = process.communicate(timeout=250)
        assert process.returncode == 0, told
        return told


def rank_of(process: subprocess.Popen[str], rank: int) -> int:
    """The process number of a rank that torchrun started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if f"RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"no process of rank {rank}")


def wait_for_epochs(folder: Path, epochs: int) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        metrics = folder / "metrics.jsonl"
        if metrics.exists() and len(metrics.read_text().splitlines()) >= epochs:
            return
        time.sleep(0.02)
    raise AssertionError("the run did not get there")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run in two processes that was never stopped; its batches have parts of unequal size."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    told = trained(*words(folder, "--parallel", "data"))
    assert told.count(f"epoch {EPOCHS}/{EPOCHS}") == 1, "the first process alone prints"
    return folder


def test_two_processes_train_as_one_does_with_the_statistics_of_the_whole_batch(tmp_path):
    plain = ("--model", "small_runs.plain", "--epochs", "2", "--optimizer.lr", "0.05")
    trained("-m", "locallearn", "train", *SMALL, *plain, "--out", str(tmp_path / "one"))
    trained(*words(tmp_path / "two", *plain, "--parallel", "data", "--synchronise-statistics", "true"))
    for one, two in zip(*map(timeless, (tmp_path / "one", tmp_path / "two")), strict=True):
        assert numbers_of(two) == pytest.approx(numbers_of(one), rel=1e-3)


def test_a_stopped_run_goes_on_in_two_processes_bit_for_bit_and_in_one(whole, tmp_path):
    folder = tmp_path / "run"
    with started(*words(folder, "--parallel", "data", "--checkpoint-every", "1")) as process:
        wait_for_epochs(folder, 2)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=100)
    assert "stopped; continue with: torchrun --nproc-per-node 2 -m locallearn train --resume" in told
    assert "error" not in told.lower().replace("error_file", "").replace("errors", "")
    state = load_checkpoint(folder / "last.pt")
    assert state["random"]["layout"] == "modules=1,data=2"
    shutil.copytree(folder, tmp_path / "alone")
    goes_on = ("-m", "locallearn", "train", "--trust-code", "--resume")
    trained(*TORCHRUN, "--standalone", "--nproc-per-node", "2", *goes_on, str(folder))
    assert_equal_runs(whole, folder)
    trained(*goes_on, str(tmp_path / "alone"))
    rows = timeless(tmp_path / "alone")
    assert len(rows) == EPOCHS
    before = state["epoch"] - 1
    assert rows[:before] == timeless(whole)[:before]
    shutil.copytree(tmp_path / "alone", tmp_path / "three")
    shutil.copy(tmp_path / "three" / "last.prev.pt", tmp_path / "three" / "last.pt")
    three = ("--standalone", "--nproc-per-node", "3")
    trained(*TORCHRUN, *three, *goes_on, str(tmp_path / "three"), "--parallel", "data")
    assert len(timeless(tmp_path / "three")) == EPOCHS


def test_a_killed_process_is_named_and_torchrun_brings_the_run_back(whole, tmp_path):
    folder = tmp_path / "run"
    with started(*words(folder, "--parallel", "data", torchrun=("--max-restarts", "1"))) as process:
        wait_for_epochs(folder, 2)
        os.kill(rank_of(process, 1), signal.SIGKILL)
        _, told = process.communicate(timeout=250)
        assert process.returncode == 0, told
    assert "error: process 0 of 2: process 1 of 2 is gone; it was " in told
    assert_equal_runs(whole, folder)


def test_a_process_that_is_held_ends_the_run_in_time(tmp_path):
    folder = tmp_path / "run"
    with started(*words(folder, "--parallel", "data", "--parallel-timeout", "5", "--epochs", "1000")) as process:
        wait_for_epochs(folder, 1)
        held = rank_of(process, 1)
        os.kill(held, signal.SIGSTOP)
        assert process.stderr is not None
        lines = []
        while not lines or "ends: no sign of life" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        os.kill(held, signal.SIGKILL)
        process.communicate(timeout=100)
    assert process.returncode != 0
    assert "error: process 0 of 2 ends: no sign of life from process 1 of 2 (" in lines[-1]
    assert "of epoch" in lines[-1]


def apart(folder: Path, *options: Any) -> list[str]:
    """What two processes tell that are started by hand, with options of their own."""
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29731"}
    start = ("-m", "locallearn", "train", *SMALL, "--out", str(folder), "--parallel", "data", "--epochs", "1")
    with (
        started(*start, *options[0], RANK="0", **where) as first,
        started(*start, *options[1], RANK="1", **where) as second,
    ):
        told = [process.communicate(timeout=200)[1] for process in (first, second)]
        assert first.returncode == second.returncode == 1, told
    return told


def test_processes_with_other_settings_are_refused(tmp_path):
    sentence = "process 1 has another batch than process 0: 16, not 17. Give all processes the same settings"
    for rank, told in enumerate(apart(tmp_path / "run", (), ("--batch", "16"))):
        assert f"error: process {rank} of 2: {sentence}" in told
    assert not (tmp_path / "run").exists()


def test_an_error_of_one_process_is_told_by_it_and_ends_the_other(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a file").write_text("of a user")
    first, second = apart(tmp_path / "run", (), ())
    assert "error: process 0 of 2: " in first
    assert "holds other files: choose a new folder by --out" in first
    assert "process 1 of 2" in second
    assert "process 0 of 2 " in second
    assert json.dumps(sorted(path.name for path in (tmp_path / "run").iterdir())) == '["a file"]'

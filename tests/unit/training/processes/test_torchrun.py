"""Whole runs in several processes that torchrun starts: equal to one process, stopped, killed, and gone on with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from processes import wait_for_epochs
from small_runs import assert_equal_runs, timeless

from locallearn.training import load_checkpoint
from locallearn.training.loggers import numbers_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SUPPORT = Path(__file__).parents[3] / "support"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
TORCHRUN = ("-m", "torch.distributed.run")
EPOCHS = 20
SLOWLY = {"SMALL_RUNS_PAUSE": "0.05"}
"""A third of a second an epoch: a run that is to be stopped lasts long enough."""
SMALL = (
    "--model",
    "small_runs.little",
    "--data",
    "small_runs.stripes",
    "--rule",
    "dgl",
    "--batch",
    "17",
    "--threads",
    "1",
)
PLAIN = (
    "--model",
    "small_runs.plain",
    "--rule",
    "man(dgl)",
    "--optimizer.lr",
    "0.05",
    "--mixup",
    "0.1",
    "--ema",
    "0.5",
)


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


def last_of_each(*options: str) -> tuple[str, ...]:
    """Options and their values, of those given twice the last."""
    values = dict(zip(options[::2], options[1::2], strict=True))
    return tuple(word for pair in values.items() for word in pair)


def words(folder: Path, *options: str, processes: int = 2, torchrun: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A run of `train` by torchrun."""
    start = (*TORCHRUN, "--standalone", "--nproc-per-node", str(processes), *torchrun, "-m", "locallearn")
    return (*start, "train", *last_of_each(*SMALL, "--epochs", str(EPOCHS), "--out", str(folder), *options))


def trained(*words: str) -> str:
    """What a process that succeeds tells on standard error."""
    with started(*words) as process:
        _, told = process.communicate(timeout=400)
        assert process.returncode == 0, told
        return told


def rank_of(process: subprocess.Popen[str], rank: int) -> int:
    """The process number of a rank that torchrun started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if f"RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"no process of rank {rank}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run in two processes that was never stopped; its batches have parts of unequal size."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    told = trained(*words(folder, "--parallel", "data"))
    assert told.count(f"epoch {EPOCHS}/{EPOCHS}") == 1, "the first process alone prints"
    return folder


def assert_close_runs(one: Path, two: Path) -> None:
    """The first epochs agree up to the rounding of sums in another order, which training soon magnifies."""
    rows, others = timeless(one), timeless(two)
    assert len(rows) == len(others) == EPOCHS
    assert numbers_of(others[0]) == pytest.approx(numbers_of(rows[0]), rel=1e-3)
    assert rows[-1]["test_accuracy"] == others[-1]["test_accuracy"] == 1.0


def goes_on(folder: Path, *options: str, processes: int) -> None:
    """Resume a run, by torchrun or in one process alone."""
    torchrun = (*TORCHRUN, "--standalone", "--nproc-per-node", str(processes)) if processes > 1 else ()
    trained(*torchrun, "-m", "locallearn", "train", "--trust-code", "--resume", str(folder), *options)


def stopped(folder: Path, *options: str, processes: int = 2) -> None:
    """Start a run, and stop it after two epochs or more."""
    with started(*words(folder, *options, processes=processes), **SLOWLY) as process:
        wait_for_epochs(folder, 2)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=200)
    resume = f"torchrun --nproc-per-node {processes} -m locallearn train --resume {folder}"
    assert f"stopped; continue with: {resume}" in told, told
    assert "error: " not in told
    assert 2 <= len(timeless(folder)) < EPOCHS


def test_a_stopped_run_goes_on_bit_for_bit(whole, tmp_path):
    stopped(tmp_path / "run", "--parallel", "data")
    goes_on(tmp_path / "run", processes=2)
    assert_equal_runs(whole, tmp_path / "run")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A run in one process, of a network without random layers."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    trained("-m", "locallearn", "train", *last_of_each(*SMALL, *PLAIN), "--epochs", str(EPOCHS), "--out", str(folder))
    return folder


def test_two_processes_train_as_one_does_with_the_statistics_of_the_whole_batch(alone, tmp_path):
    trained(*words(tmp_path / "run", *PLAIN, "--parallel", "data", "--synchronise-statistics", "true"))
    assert_close_runs(alone, tmp_path / "run")


def test_modules_in_two_processes_and_then_in_one_have_the_bits_of_one(alone, tmp_path):
    folder = tmp_path / "run"
    stopped(folder, *PLAIN, "--parallel", "modules")
    assert load_checkpoint(folder / "last.pt")["random"]["layout"] == "modules=2,data=1"
    shutil.copytree(folder, tmp_path / "modules")
    goes_on(folder, processes=1)
    assert_equal_runs(alone, folder)
    goes_on(tmp_path / "modules", processes=2)
    assert_equal_runs(alone, tmp_path / "modules")


def test_heads_of_modules_in_two_processes_are_evaluated_as_in_one(tmp_path):
    options = (*PLAIN, "--eval-heads", "true", "--epochs", "2")
    trained("-m", "locallearn", "train", *last_of_each(*SMALL, *options), "--out", str(tmp_path / "alone"))
    trained(*words(tmp_path / "two", *options, "--parallel", "modules"))
    assert_equal_runs(tmp_path / "alone", tmp_path / "two")
    assert len(timeless(tmp_path / "two")[-1]["head_accuracies"]) == 3


def test_the_peak_of_a_run_by_modules_is_that_of_its_largest_process(tmp_path):
    folder = tmp_path / "run"
    trained(*words(folder, "--parallel", "modules", "--epochs", "1"))
    result = json.loads((folder / "result.json").read_text())
    rows = result["processes"]
    assert [row["modules"] for row in rows] == [[0, rows[0]["modules"][1]], [rows[0]["modules"][1] + 1, 2]]
    assert result["peak_total_bytes"] == max(row["peak_total_bytes"] for row in rows)
    assert "replay_buffer" not in result


def test_asynchronous_processes_learn_and_say_how_stale_their_batches_were(tmp_path):
    folder = tmp_path / "run"
    stopped(folder, "--parallel", "modules", "--replay-buffer", "4")
    goes_on(folder, processes=2)
    result = json.loads((folder / "result.json").read_text())
    assert result["test_accuracy"] == 1.0
    assert result["replay_buffer"] == 4
    first, second = result["staleness"]
    assert first is None
    assert second["batches"] > 0
    assert 0 <= second["mean"] <= second["largest"]
    goes_on(folder, "--epochs", str(EPOCHS + 1), processes=1)
    assert len(timeless(folder)) == EPOCHS + 1


def test_four_processes_and_then_two_train_as_one_does(alone, tmp_path):
    folder, whole_batch = tmp_path / "run", ("--synchronise-statistics", "true")
    stopped(folder, *PLAIN, *whole_batch, "--parallel", "modules=2,data=2", processes=4)
    goes_on(folder, *whole_batch, "--parallel", "data", processes=2)
    assert_close_runs(alone, folder)


def killed_and_brought_back(folder: Path, *options: str) -> None:
    """A run of which process 1 is killed in the third epoch or later, and torchrun starts it again."""
    with started(*words(folder, *options, torchrun=("--max-restarts", "1")), **SLOWLY) as process:
        wait_for_epochs(folder, 2)
        os.kill(rank_of(process, 1), signal.SIGKILL)
        _, told = process.communicate(timeout=400)
        assert process.returncode == 0, told
    assert "error: process 0 of 2: process 1 of 2 is gone; it was " in told


def test_a_killed_process_is_named_and_torchrun_brings_the_run_back(whole, tmp_path):
    killed_and_brought_back(tmp_path / "run", "--parallel", "data")
    assert_equal_runs(whole, tmp_path / "run")


def test_a_killed_process_of_modules_is_named_and_torchrun_brings_the_run_back(alone, tmp_path):
    killed_and_brought_back(tmp_path / "run", *PLAIN, "--parallel", "modules")
    assert_equal_runs(alone, tmp_path / "run")


def test_a_process_that_is_held_ends_the_run_in_time(tmp_path):
    folder = tmp_path / "run"
    options = ("--parallel", "data", "--parallel-timeout", "20", "--epochs", "1000")
    with started(*words(folder, *options), **SLOWLY) as process:
        wait_for_epochs(folder, 8)  # seconds: the process has told that it trains
        held = rank_of(process, 1)
        os.kill(held, signal.SIGSTOP)
        assert process.stderr is not None
        lines = []
        while not lines or "ends: no sign of life" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        os.kill(held, signal.SIGKILL)
        process.communicate(timeout=200)
    assert process.returncode != 0
    assert "error: process 0 of 2 ends: no sign of life from process 1 of 2 (" in lines[-1]
    assert re.search(r"\((.+ of|testing after) epoch \d+\)", lines[-1])


def apart(folder: Path, *options: Any) -> list[str]:
    """What two processes tell that are started by hand, with options of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    all_of = (*SMALL, "--out", str(folder), "--parallel", "data", "--epochs", "1")
    start = ("-m", "locallearn", "train")
    with (
        started(*start, *last_of_each(*all_of, *options[0]), RANK="0", **where) as first,
        started(*start, *last_of_each(*all_of, *options[1]), RANK="1", **where) as second,
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

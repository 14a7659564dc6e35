"""Ctrl-C and kills, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import timeless

SUPPORT = Path(__file__).parents[2] / "support"
SMALL = [
    "--model",
    "small_runs.little",
    "--data",
    "small_runs.stripes",
    "--batch",
    "16",
    "--epochs",
    "40",
    "--rule",
    "dgl",
]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "locallearn", *arguments, "--threads", "1"],
        env=os.environ | {"PYTHONPATH": str(SUPPORT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_epochs(folder: Path, epochs: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        metrics = folder / "metrics.jsonl"
        if (folder / "last.pt").exists() and metrics.exists() and len(metrics.read_text().splitlines()) >= epochs:
            return
        time.sleep(0.02)
    raise AssertionError("the run did not get there")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = start("train", *SMALL, "--out", str(folder))
    _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told
    return folder


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_run_resumes_bit_for_bit(kill, whole, tmp_path):
    folder = tmp_path / "run"
    process = start("train", *SMALL, "--out", str(folder))
    wait_for_epochs(folder, 2)
    process.send_signal(kill)
    _, told = process.communicate(timeout=100)
    assert process.returncode == (-9 if kill is signal.SIGKILL else 128 + kill), told
    assert "Traceback" not in told
    if kill in (signal.SIGINT, signal.SIGTERM):  # after SIGHUP there is no terminal to tell it to
        assert f"continue with: locallearn train --resume {folder}" in told
    assert len(timeless(folder)) < 40
    resumed = subprocess.run(
        [sys.executable, "-m", "locallearn", "train", "--resume", str(folder), "--trust-code", "--json"],
        env=os.environ | {"PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert json.loads(resumed.stdout)["epochs"] == 40
    assert timeless(folder) == timeless(whole)

"""Ctrl-C and kills, in processes of their own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from processes import wait_for_epochs
from small_runs import timeless

from locallearn.training import load_checkpoint

SUPPORT = Path(__file__).parents[2] / "support"
SMALL = [
    "--model",
    "small_runs.little",
    "--data",
    "small_runs.stripes",
    "--batch",
    "16",
    "--rule",
    "dgl",
    "--epochs",
    "40",
]


def start(
    *arguments: str, terminal: int | None = None, nohup: bool = False, pause: float = 0.0
) -> subprocess.Popen[str]:
    """A process of its own; with a terminal, in a session of its own that the terminal controls.

    With a pause in seconds before each of the 7 batches of an epoch, the run does not end before it is stopped.
    """
    more: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if terminal is not None:
        more = dict.fromkeys(("stdin", "stdout", "stderr"), terminal) | {"start_new_session": True}
        more["preexec_fn"] = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if nohup:
        more["preexec_fn"] = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    command = [sys.executable, "-m", "locallearn", *arguments, "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(SUPPORT), "SMALL_RUNS_PAUSE": str(pause)}
    return subprocess.Popen(command, env=environment, text=True, **more)


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
    process = start("train", *SMALL, "--out", str(folder), pause=0.03)
    wait_for_epochs(folder, 2)
    process.send_signal(kill)
    _, told = process.communicate(timeout=100)
    assert process.returncode == (-9 if kill is signal.SIGKILL else 128 + kill), told
    assert "Traceback" not in told
    if kill is not signal.SIGKILL:
        assert f"continue with: locallearn train --resume {folder} --trust-code" in told
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


@pytest.mark.parametrize("stalled", [False, True])
def test_a_closed_terminal_stops_the_run_with_a_checkpoint(stalled, tmp_path):
    folder = tmp_path / "run"
    window, terminal = pty.openpty()
    process = start("train", *SMALL[:-1], "4000", "--out", str(folder), terminal=terminal)
    os.close(terminal)
    os.set_blocking(window, False)
    wait_for_epochs(folder, 2, window=window)
    if stalled:  # as a lost connection does: the run waits to write, until writing fails
        lines = -1
        while lines != (lines := len(timeless(folder))):
            time.sleep(2)
    os.close(window)  # the system sends SIGHUP, and writing to the terminal fails
    assert process.wait(timeout=100) == 128 + signal.SIGHUP
    assert load_checkpoint(folder / "last.pt")["epoch"] >= 2


def test_a_hangup_that_nohup_ignores_does_not_stop_the_run(tmp_path):
    folder = tmp_path / "run"
    process = start("train", *SMALL[:-1], "4", "--out", str(folder), nohup=True, pause=0.03)
    wait_for_epochs(folder, 1)
    process.send_signal(signal.SIGHUP)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 0, told

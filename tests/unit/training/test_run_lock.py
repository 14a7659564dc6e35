"""One process at a time in a run folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import settings

from locallearn import LocalLearnError
from locallearn.training import train
from locallearn.training.run_lock import LOCK, locked


def test_the_lock_names_its_process_and_is_gone_afterwards(tmp_path):
    with locked(tmp_path):
        number, machine, *_ = (tmp_path / LOCK).read_text().split()
        assert (int(number), machine) == (os.getpid(), socket.gethostname())
        sentence = f"is in use by process {os.getpid()} on {machine}: wait for it, stop it, or choose another folder"
        with pytest.raises(LocalLearnError, match=sentence), locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_gives_the_lock_back(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        raise KeyboardInterrupt
    with locked(tmp_path):
        pass


@pytest.fixture
def dead() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_lock_of_a_process_that_is_gone_is_taken_over(tmp_path, dead):
    (tmp_path / LOCK).write_text(f"{dead}\n{socket.gethostname()}\n")
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"{os.getpid()}\n")
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_another_machine_is_respected(tmp_path, dead):
    (tmp_path / LOCK).write_text(f"{dead}\nelsewhere\n")
    with pytest.raises(LocalLearnError, match=rf"process {dead} on elsewhere.* If that process is gone, delete "):
        locked(tmp_path).__enter__()


def test_training_in_a_folder_in_use_changes_nothing(tmp_path):
    folder = tmp_path / "run"
    train(settings(epochs=1), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with locked(folder), pytest.raises(LocalLearnError, match="is in use by process"):
        train(settings(epochs=1), folder, resume=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_new_run_in_a_folder_in_use_is_refused_and_one_left_by_a_kill_is_used(tmp_path, dead):
    folder = Path(tmp_path / "run")
    folder.mkdir()
    with locked(folder), pytest.raises(LocalLearnError, match="is in use by process"):
        train(settings(epochs=1), folder)
    (folder / LOCK).write_text(f"{dead}\n{socket.gethostname()}\n")
    train(settings(epochs=1), folder)
    assert not (folder / LOCK).exists()

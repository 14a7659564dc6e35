"""Layouts as text, and what torchrun says."""

from __future__ import annotations

import pytest

from locallearn import LocalLearnError
from locallearn.training import TrainSettings
from locallearn.training.processes.grid import ProcessGrid
from locallearn.training.processes.launch import Launch, program

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "::1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("text", "count", "modules", "data"),
    [
        ("data", 4, 1, 4),
        ("modules", 4, 4, 1),
        ("modules=2,data=2", 4, 2, 2),
        ("data, modules=2", 6, 2, 3),
        ("data=1", 1, 1, 1),
    ],
)
def test_what_has_no_size_takes_all_processes_that_remain(text, count, modules, data):
    layout = ProcessGrid.of(text, count)
    assert (layout.modules, layout.data, layout.count) == (modules, data, count)
    assert ProcessGrid.of(str(layout), count) == layout


@pytest.mark.parametrize("text", ["", "date", "data=0", "data=two", "data,data", "modules=2;data=2", "data=-1"])
def test_what_is_no_layout_is_refused(text):
    with pytest.raises(LocalLearnError, match="is no layout: write data, modules, or modules=2,data=2"):
        ProcessGrid.of(text, 4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("modules=2,data=3", "a layout of 6 processes, but there are 4"),
        ("modules=3,data", "a layout of 3 times any number of processes, but there are 4"),
        ("modules=8,data", "a layout of 8 times any number of processes, but there are 4"),
        ("modules,data", "leaves two sizes open"),
    ],
)
def test_a_layout_of_other_processes_is_refused(text, told):
    with pytest.raises(LocalLearnError, match=told):
        ProcessGrid.of(text, 4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"replay_buffer": 2}, "replay_buffer goes with several processes: add --parallel modules"),
        ({"replay_buffer": 2, "parallel": "data"}, "replay_buffer goes with --parallel modules alone, not with data:"),
        ({"replay_buffer": 2, "parallel": "modules=2,data"}, "alone, not with modules=2,data: processes that share"),
        ({"replay_buffer": 0, "parallel": "modules"}, "replay_buffer=0 must be at least 1"),
    ],
)
def test_a_replay_buffer_is_of_processes_that_have_some_modules_each(settings, told):
    with pytest.raises(LocalLearnError, match=told):
        TrainSettings(**settings)


def test_a_process_knows_what_torchrun_says():
    launch = Launch.of(TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "2"})
    assert launch == Launch(rank=1, count=4, local_rank=1, local_count=4, host="::1", port=29500, restarts=2)
    assert launch is not None
    assert launch.named() == "process 1 of 4"
    assert Launch.of({}) is None


def test_half_of_what_torchrun_says_is_refused():
    with pytest.raises(LocalLearnError, match="MASTER_PORT"):
        Launch.of({name: value for name, value in TORCHRUN.items() if name != "MASTER_PORT"})
    with pytest.raises(LocalLearnError, match="RANK='one' is no whole number"):
        Launch.of(TORCHRUN | {"RANK": "one"})


def test_a_command_for_the_user_has_torchrun_where_the_run_has(monkeypatch):
    assert program() == ["locallearn"]
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert program() == ["torchrun", "--nproc-per-node", "4", "-m", "locallearn"]

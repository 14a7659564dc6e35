"""Processes that are silent or do not go on; here, threads of one process."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch.distributed as dist

from locallearn.training.processes.heartbeat import Heartbeat
from locallearn.training.processes.launch import Launch

FIRST = Launch(rank=0, count=2, local_rank=0, local_count=2, host="here", port=1)
SECOND = replace(FIRST, rank=1)


@contextmanager
def beating(*, timeout: float = 0.2):
    """Two heartbeats, and what processes tell when they end."""
    ended: list[str] = []
    store = dist.HashStore()
    beats = [Heartbeat(store, launch, timeout, end=ended.append, grace=0.0) for launch in (FIRST, SECOND)]
    for beat in beats:
        beat.start()
    yield *beats, ended
    for beat in beats:
        beat.stop()


def told(ended: list[str], count: int = 1) -> list[str]:
    deadline = time.monotonic() + 20
    while len(ended) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(ended) == count
    return sorted(ended)


def test_processes_that_go_on_live():
    with beating() as (first, second, ended):
        for number in range(25):
            first.at(f"batch {number}")
            second.at(f"batch {number}")
            time.sleep(0.02)
        assert not ended


@pytest.mark.parametrize("silent", [0, 1])
def test_a_silent_process_ends_the_other_one(silent):
    with beating() as (*beats, ended):
        beats[silent].at("reading batch 7")
        time.sleep(0.1)
        beats[silent].stop()
        (sentence,) = told(ended)
        assert sentence == (
            f"process {1 - silent} of 2 ends: no sign of life from process {silent} of 2 (reading batch 7) for 0.2 s"
            " (parallel_timeout)."
        )


def test_a_process_that_does_not_go_on_ends_both():
    with beating() as (first, second, ended):
        second.at("reading batch 7")
        for activity in ("reading batch 7", "training on batch 7"):
            first.at(activity)
        verdict = "no progress of process 1 of 2 (reading batch 7) for 0.2 s (parallel_timeout)."
        assert told(ended, 2) == [f"process {rank} of 2 ends: {verdict}" for rank in range(2)]


def test_a_process_that_fails_ends_the_other_one():
    with beating(timeout=2) as (_, second, ended):
        second.fail()
        assert told(ended) == ["process 0 of 2 ends: process 1 of 2 failed, and tells why."]


def test_the_first_process_waits_until_the_others_know_why():
    with beating(timeout=2) as (first, second, ended):
        first.fail()
        assert second.cause() == "process 0 of 2 failed, and tells why"
        assert told(ended) == ["process 1 of 2 ends: process 0 of 2 failed, and tells why."]


def test_the_thread_is_over_before_its_process_ends():
    with beating(timeout=2) as (first, second, _):
        first.stop()
        second.fail()
        assert [thread.name for thread in threading.enumerate() if thread.name == "heartbeat"] == []


def test_a_broken_connection_names_the_process_that_is_gone():
    with beating(timeout=1) as (first, second, _):
        second.at("training on batch 3")
        time.sleep(0.15)
        second.stop()
        assert first.cause() == "process 1 of 2 is gone; it was training on batch 3"

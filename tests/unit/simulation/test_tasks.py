"""The discrete-event simulation by itself."""

from __future__ import annotations

import pytest

from locallearn.simulation.tasks import Task, run


def task(place, seconds, after=(), priority=(0,), **more):
    return Task(place=place, seconds=seconds, after=list(after), priority=priority, **more)


def test_a_place_runs_one_task_at_a_time_the_most_urgent_that_can_start():
    found = run([task("a", 2), task("a", 1, priority=(2,)), task("a", 5, priority=(1,)), task("b", 3, after=[1])])
    assert found.ends == (2, 8, 7, 11)
    assert found.seconds == 11
    assert found.busy == {"a": 8, "b": 3}


def test_a_running_task_is_not_interrupted():
    assert run([task("a", 1), task("b", 4, priority=(1,)), task("b", 1, after=[0])]).ends == (1, 4, 5)


def test_bytes_are_held_from_begin_or_end_and_freed_before_anything_begins():
    found = run(
        [
            task("a", 1, peak=7, ends=[("a", 3)]),
            task("link", 1, after=[0], sent=5, begins=[("b", 5)], ends=[("a", -3)]),
            task("b", 1, after=[1], peak=4, ends=[("b", -5)]),
            task("a", 1, after=[1], peak=6),
        ]
    )
    assert found.peaks == {"a": 7, "b": 9, "link": 0}
    assert found.sent["link"] == 5


def test_tasks_that_wait_for_one_another_are_noticed():
    with pytest.raises(AssertionError, match="wait for one another"):
        run([task("a", 1, after=[1]), task("b", 1, after=[0])])

"""A discrete-event simulation: tasks on devices and links, each after others, with the bytes that they hold."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

Place = Hashable
"""A device or a link. It runs one task at a time."""


@dataclass(kw_only=True)
class Task:
    """A piece of work.

    Attributes:
        place: which device or link runs it.
        seconds: how long it takes.
        after: the tasks that must have ended, by number.
        priority: of several tasks that could start, a place takes the one with the smallest.
        sent: bytes that it sends.
        peak: bytes that its place holds while it runs, beyond those held before.
        begins, ends: bytes that a place holds more from the begin, or from the end of the task on.
    """

    place: Place
    seconds: float
    after: list[int]
    priority: tuple[int, ...]
    sent: float = 0.0
    peak: float = 0.0
    begins: list[tuple[Place, float]] = field(default_factory=list)
    ends: list[tuple[Place, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When the tasks ran.

    Attributes:
        ends: the end of each task, in seconds.
        busy: seconds in which each place worked.
        sent: bytes that each place sent.
        peaks: the most bytes that each place held.
    """

    ends: tuple[float, ...]
    busy: dict[Place, float]
    sent: dict[Place, float]
    peaks: dict[Place, float]

    @property
    def seconds(self) -> float:
        """When the last task ended."""
        return max(self.ends)


def run(tasks: Sequence[Task]) -> Schedule:
    """Run all tasks: each place starts the most urgent of its tasks that can start, and never interrupts one."""
    followers: list[list[int]] = [[] for _ in tasks]
    for number, task in enumerate(tasks):
        for earlier in task.after:
            followers[earlier].append(number)
    waits_for = [len(task.after) for task in tasks]
    ready: dict[Place, list[tuple[tuple[int, ...], int]]] = {task.place: [] for task in tasks}
    for number, task in enumerate(tasks):
        if not waits_for[number]:
            heapq.heappush(ready[task.place], (task.priority, number))
    ends = [0.0] * len(tasks)
    running: list[tuple[float, int]] = []
    held: defaultdict[Place, float] = defaultdict(float)
    peaks: defaultdict[Place, float] = defaultdict(float)
    working: set[Place] = set()
    idle = set(ready)
    now, done = 0.0, 0
    while True:
        for place in idle - working:
            if ready[place]:
                _, number = heapq.heappop(ready[place])
                working.add(place)
                task = tasks[number]
                heapq.heappush(running, (now + task.seconds, number))
                for where, size in task.begins:
                    held[where] += size
                    peaks[where] = max(peaks[where], held[where])
                peaks[place] = max(peaks[place], held[place] + task.peak)
        if not running:
            break
        now = running[0][0]
        idle = set()
        while running and running[0][0] == now:  # all that ends now, before anything begins
            _, number = heapq.heappop(running)
            task = tasks[number]
            ends[number] = now
            working.discard(task.place)
            idle.add(task.place)
            for where, size in task.ends:
                held[where] += size
            for later in followers[number]:
                waits_for[later] -= 1
                if not waits_for[later]:
                    heapq.heappush(ready[tasks[later].place], (tasks[later].priority, later))
                    idle.add(tasks[later].place)
            done += 1
    assert done == len(tasks), "tasks wait for one another"
    busy: defaultdict[Place, float] = defaultdict(float)
    sent: defaultdict[Place, float] = defaultdict(float)
    for task in tasks:
        busy[task.place] += task.seconds
        sent[task.place] += task.sent
    return Schedule(ends=tuple(ends), busy=busy, sent=sent, peaks=peaks)

"""Each process tells the others that it lives and what it does, and ends when one of them is gone."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic, sleep
from typing import NoReturn

import torch.distributed as dist

from locallearn._utils.errors import reason_of
from locallearn.training.processes.launch import Launch

_INTERVAL = 0.5
_VERDICT = "verdict"
_LAST_CALL = 5.0
"""Seconds that a process which ends waits for its thread, and for the others to read why, at most."""


def _end_process(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    os._exit(1)


@dataclass
class _Seen:
    """What is known of a process, and since when it is so."""

    beats: str = ""
    progress: str = "0"
    activity: str = ""
    alive: float = 0.0
    moved: float = 0.0


class Heartbeat:
    """A thread that tells and watches, through a store that all processes reach.

    Process 0 watches all others, these watch process 0. Who sees that one is silent, or that none goes on, writes a
    verdict; every process reads it, prints it and ends.

    Args:
        store: this thread's own connection.
        launch: which process this is.
        timeout: seconds after which a process that is silent, or does not go on, is given up.
        end: ends this process, with what is to be told; called in the thread, for the main one may wait for ever.
        grace: seconds that a process which fails has for its own last words, before the others end.
    """

    def __init__(
        self,
        store: dist.Store,
        launch: Launch,
        timeout: float,
        *,
        end: Callable[[str], object] = _end_process,
        grace: float = 3.0,
    ) -> None:
        self._store, self._launch, self._timeout, self._end, self._grace = store, launch, timeout, end, grace
        self._interval = min(_INTERVAL, timeout / 10)
        self._beats = self._progress = 0
        self._activity = "starting"
        self._verdict: str | None = None
        self._stopped = threading.Event()
        watched = range(launch.count) if launch.rank == 0 else range(1)
        self._seen = {rank: _Seen(alive=monotonic(), moved=monotonic()) for rank in watched}
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._tell()

    def at(self, activity: str) -> None:
        """Tell what this process does now; all processes tell the same in the same order."""
        self._activity = activity
        self._progress += 1

    def start(self) -> None:
        """Begin to tell and to watch, once all processes are there."""
        self._thread.start()

    def stop(self) -> None:
        """End without a word, and wait for the thread: in the store's code when Python ends, it would abort."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_CALL)

    def fail(self) -> None:
        """Let the others end: this process has an error of its own, which it tells."""
        self.stop()
        with suppress(RuntimeError):
            self._store.compare_set(_VERDICT, "", f"{self._launch.named()} failed, and tells why")
            self._store.set(_has_read(self._launch.rank), "")
            if self._launch.rank == 0 and not self._launch.hosted:  # the store ends with this process
                others = [_has_read(rank) for rank in range(1, self._launch.count)]
                self._store.wait(others, timedelta(seconds=_LAST_CALL))

    def cause(self) -> str:
        """Why the others cannot be reached any more: a verdict, or who is silent, in a few seconds."""
        try:
            before = self._all()
            sleep(4 * self._interval)
            if self._store.check([_VERDICT]):
                return self._store.get(_VERDICT).decode()
            now = self._all()
        except RuntimeError:  # the store ended with process 0
            return self._verdict or f"{self._launch.address} does not answer any more"
        silent = [rank for rank, seen in now.items() if seen.beats == before[rank].beats]
        others = [rank for rank in silent if rank != self._launch.rank]
        if not others:
            return "the connection to another process broke"
        return ", ".join(f"{self._launch.named(r)} is gone; it was {before[r].activity}" for r in others)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self._tell()
                self._watch()
                if self._store.check([_VERDICT]):
                    self._verdict = self._store.get(_VERDICT).decode()
                    self._store.set(_has_read(self._launch.rank), "")
            except RuntimeError as error:
                self._verdict = self._verdict or f"{self._launch.address} does not answer any more ({reason_of(error)})"
            if self._verdict is not None:
                if not self._stopped.wait(self._grace):
                    self._end(f"{self._launch.named()} ends: {self._verdict}.")
                return

    def _tell(self) -> None:
        self._beats += 1
        self._store.set(_key(self._launch.rank), f"{self._beats} {self._progress} {self._activity}")

    def _watch(self) -> None:
        now = monotonic()
        for rank, seen in self._seen.items():
            beats, progress, activity = self._store.get(_key(rank)).decode().split(" ", 2)
            seen.alive = now if beats != seen.beats else seen.alive
            seen.moved = now if progress != seen.progress else seen.moved
            seen.beats, seen.progress, seen.activity = beats, progress, activity
        quiet = max(now - seen.alive for seen in self._seen.values())
        still = min(now - seen.moved for seen in self._seen.values())
        if silent := [rank for rank, seen in self._seen.items() if now - seen.alive > self._timeout]:
            self._judge(silent, "no sign of life from")
        elif still > self._timeout and quiet < 4 * self._interval and self._launch.rank == 0:
            least = min(int(seen.progress) for seen in self._seen.values())
            self._judge([r for r, seen in self._seen.items() if int(seen.progress) == least], "no progress of")

    def _judge(self, ranks: list[int], what: str) -> None:
        names = " and ".join(f"{self._launch.named(rank)} ({self._seen[rank].activity})" for rank in ranks)
        self._store.compare_set(_VERDICT, "", f"{what} {names} for {self._timeout:g} s (parallel_timeout)")

    def _all(self) -> dict[int, _Seen]:
        words = {r: self._store.get(_key(r)).decode().split(" ", 2) for r in range(self._launch.count)}
        return {rank: _Seen(beats, progress, activity) for rank, (beats, progress, activity) in words.items()}


def _key(rank: int) -> str:
    return f"beat/{rank}"


def _has_read(rank: int) -> str:
    return f"has read/{rank}"


def wait_for_all(store: dist.Store, launch: Launch) -> list[int]:
    """Wait until the heartbeat of every process is there; the numbers of those that did not come in time."""
    keys = [_key(rank) for rank in range(launch.count)]
    try:
        store.wait(keys)
    except RuntimeError:
        return [rank for rank, key in enumerate(keys) if not store.check([key])]
    return []

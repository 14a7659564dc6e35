"""Who trains the runs of a reproduction: this process, one after the other; or several processes, side by side."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any, TypeVar

import torch

from locallearn._utils.errors import LocalLearnError, LocalLearnWarning
from locallearn.training import Checkpoint, Interrupted, TrainSettings, Watcher, train

Given = TypeVar("Given")
Result = TypeVar("Result")

Watching = Callable[[str, TrainSettings], AbstractContextManager[Watcher]]
"""Shows a run of some name and settings."""

_EVERY = 0.5  # seconds: between two looks at whether to stop, and between two steps of a run that are told


class Alone:
    """Trains in this process, one run after the other.

    Args:
        watching: shows a run.
        say: prints a sentence for a person.
    """

    count = 1

    def __init__(self, watching: Watching, *, say: Callable[[str], None] = lambda _: None) -> None:
        self.watching, self.say = watching, say

    def train(self, name: str, settings: TrainSettings, folder: Path, resume: Checkpoint | None) -> float:
        """Train a run, as `locallearn.training.train`; the seconds that it took."""
        begun = monotonic()
        with self.watching(name, settings) as watcher:
            train(settings, folder, resume=resume, watcher=watcher, say=self.say)
        return monotonic() - begun

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function of a module."""
        return function(*arguments)

    def map(self, function: Callable[[Given], Result], given: Iterable[Given]) -> list[Result]:
        """A function's results; it may call `train` and `call`."""
        return [function(one) for one in given]

    def stop(self) -> None:
        """Let all runs write a checkpoint and end."""


class SideBySide(Alone):
    """Trains in several processes, each with one thread unless the settings of a run say otherwise.

    Use it as a context. Runs begin in the order in which they are asked for.

    Args:
        count: how many processes.
        watching: shows a run, told here what its process does.
        asked_to_stop: asked now and then whether all runs are to write a checkpoint and stop.
        say: prints a sentence for a person.
    """

    def __init__(
        self,
        count: int,
        watching: Watching,
        *,
        asked_to_stop: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(watching, say=say)
        self.count, self.asked_to_stop = count, asked_to_stop
        self._watchers: dict[str, Watcher] = {}

    def __enter__(self) -> SideBySide:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks of PyTorch's threads
        self._messages, self._stop = context.Queue(), context.Event()
        begin = (self._messages, self._stop)
        self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_begin, initargs=begin)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.stop()
        self._pool.shutdown(cancel_futures=True)
        self._messages.put(None)  # the last one: the processes have ended
        self._listener.join()

    def train(self, name: str, settings: TrainSettings, folder: Path, resume: Checkpoint | None) -> float:
        with self.watching(name, settings) as watcher:
            key = str(folder)
            self._watchers[key] = watcher
            return self.call(_train, key, settings, folder, resume)

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        if self._stop.is_set():
            raise Interrupted
        try:
            return self._pool.submit(_called, function, arguments).result()
        except BrokenProcessPool as error:
            raise LocalLearnError(
                "one of the processes of --jobs was killed, maybe for its memory: give the same command again to go on,"
                " with fewer jobs."
            ) from error

    def map(self, function: Callable[[Given], Result], given: Iterable[Given]) -> list[Result]:
        everything = list(given)
        with ThreadPoolExecutor(self.count) as threads:  # so that the first ones are finished first
            futures = [threads.submit(function, one) for one in everything]
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, Interrupted)):  # first what stopped the others
            raise error
        return [future.result() for future in futures]

    def stop(self) -> None:
        self._stop.set()

    def _listen(self) -> None:
        """Pass on what processes tell, and whether they are to stop."""
        message: tuple[str, str, Any] | None = ("", "", None)
        while message is not None:
            if self.asked_to_stop():
                self.stop()
            with suppress(Empty):
                message = self._messages.get(timeout=_EVERY)
                self._pass_on(*message or ("", "", None))

    def _pass_on(self, key: str, what: str, value: Any) -> None:
        if what == "batch":
            self._watchers[key].batch(**value)
        elif what == "epoch":
            self._watchers[key].epoch(value)
        elif what == "say":
            self.say(value)


class _Process:
    """What a process of the pool knows."""

    messages: Any
    stop: Any
    at_work = threading.Lock()


class _Telling(Watcher):
    """Tells the first process what a run does."""

    def __init__(self, key: str) -> None:
        self.key, self.told = key, 0.0

    def batch(self, *, epoch: int, step: int, steps: int, loss: float) -> None:
        if step == steps or monotonic() > self.told + _EVERY:
            self.told = monotonic()
            values = {"epoch": epoch, "step": step, "steps": steps, "loss": loss}
            _Process.messages.put((self.key, "batch", values))

    def epoch(self, row: dict[str, Any]) -> None:
        _Process.messages.put((self.key, "epoch", row))

    def stop_requested(self) -> bool:
        return _Process.stop.is_set()


def _begin(messages: Any, stop: Any) -> None:
    """The start of a process."""
    _Process.messages, _Process.stop = messages, stop
    torch.set_num_threads(1)
    ours = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    for number in ours:  # a terminal sends them to all processes; the first one says what to do
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    default = warnings.showwarning

    def tell(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, LocalLearnWarning):
            messages.put(("", "say", f"note: {message}"))
        else:
            default(message, category, *rest, **more)

    warnings.showwarning = tell


def _end_with_parent() -> None:
    """Write a checkpoint and end where the first process was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _Process.stop.set()
    with _Process.at_work:
        os._exit(1)


def _called(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    with _Process.at_work:
        return function(*arguments)


def _train(key: str, settings: TrainSettings, folder: Path, resume: Checkpoint | None) -> float:
    if _Process.stop.is_set():  # while it waited for its turn
        raise Interrupted
    begun = monotonic()

    def say(sentence: str) -> None:
        _Process.messages.put((key, "say", sentence))

    train(settings, folder, resume=resume, watcher=_Telling(key), say=say)
    return monotonic() - begun

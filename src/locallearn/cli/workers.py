"""Who trains the runs of a command, with progress in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from locallearn._utils.errors import LocalLearnError
from locallearn.cli.console import ConsoleWatcher, bars, say
from locallearn.cli.stop_signals import StopSignal, stop_signals
from locallearn.recipes.workers import Alone, SideBySide
from locallearn.training import Interrupted, TrainSettings, Watcher


@contextmanager
def workers_of(jobs: int, *, again: str = "the same command") -> Iterator[Alone]:
    """This process, or several, whose progress is shown; the first signal asks all of them to stop.

    Args:
        jobs: how many processes train; with one, this one.
        again: tells a user who stops training what goes on with it.

    Raises:
        LocalLearnError: there are no processes.
    """
    if jobs < 1:
        raise LocalLearnError(f"--jobs {jobs} must be at least 1.")
    if jobs == 1:

        def watching_one(name: str, settings: TrainSettings) -> AbstractContextManager[Watcher]:
            return ConsoleWatcher(name, settings.epochs, batch=settings.batch).shown(lambda: again)

        yield Alone(watching_one, say=say)
        return
    told, stopping = StopSignal(), False

    def asked_to_stop() -> bool:
        nonlocal stopping
        if told.number and not stopping:
            stopping = True
            say("stopping after these steps; checkpoints will be written")
        return stopping

    with stop_signals(told), bars() as shown:

        @contextmanager
        def watching(name: str, settings: TrainSettings) -> Iterator[Watcher]:
            watcher = ConsoleWatcher(name, settings.epochs, batch=settings.batch, progress=shown)
            try:
                yield watcher
            finally:
                shown.remove_task(watcher.bar)

        try:
            with SideBySide(jobs, watching, asked_to_stop=asked_to_stop, say=say) as workers:
                yield workers
        except Interrupted as error:
            say(f"stopped; continue with: {again}")
            error.signal = told.number
            raise

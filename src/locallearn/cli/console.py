"""Terminal output: progress bars, sentences, tables, JSON; and Ctrl-C."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from locallearn._utils.quantities import counted
from locallearn.cli.stop_signals import StopSignal, stop_signals
from locallearn.training import Interrupted, Watcher


class _Stderr:
    """Standard error. When its terminal is closed, writing fails; that must not end training before it is saved."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    @property
    def _file(self) -> Any:
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # under a progress bar, Rich puts its own there

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


TEXT_ONLY: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
"""Rich would read brackets and colons in texts, such as paths and rules, as styles and pictures."""

err = Console(file=_Stderr(), **TEXT_ONLY)  # pyright: ignore[reportArgumentType]
"""Standard error, for progress and sentences; results go to standard output."""

_SCORES = {
    "test_accuracy": "test accuracy",
    "validation_accuracy": "validation",
    "unaveraged_test_accuracy": "without EMA",
    "test_top5_accuracy": "top-5",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
}
_SHOWN = 3  # names of bad images printed after an epoch; metrics.jsonl has all


_LINE_EVERY = 60.0  # seconds, without a terminal
_NARROWEST = 12  # letters of a column of a table


class ConsoleWatcher(Watcher):
    """Shows a progress bar during an epoch and prints a line after it; stops training at Ctrl-C, SIGTERM or SIGHUP.

    Without a terminal it prints a line each minute.

    Args:
        name: of the run.
        epochs: in all.
        batch: images of a step.
        progress: where its bar stands, of several runs side by side; by default one of its own.
    """

    def __init__(self, name: str, epochs: int, *, batch: int, progress: Progress | None = None) -> None:
        self.name, self.epochs, self.images, self.signal, self.told = name, epochs, batch, StopSignal(), False
        self.progress = progress or bars()
        self.bar = self.progress.add_task(name, visible=progress is None)
        self._first: tuple[float, int] | None = None
        self._last_line = monotonic()

    def batch(self, *, epoch: int, step: int, steps: int, loss: float) -> None:
        description = f"{self.name}  epoch {epoch}/{self.epochs}  loss {loss:.3f}"
        with suppress(KeyError):  # of a run in another process, which may be over
            self.progress.update(self.bar, description=description, completed=step, total=steps, visible=True)
        now, done = monotonic(), (epoch - 1) * steps + step
        self._first = self._first or (now, done)
        if err.is_terminal or now < self._last_line + _LINE_EVERY or done == self._first[1]:
            return
        self._last_line = now
        per_step = (now - self._first[0]) / (done - self._first[1])
        to_go = timedelta(seconds=round(per_step * (self.epochs * steps - done)))
        err.print(
            f"{self.name}  epoch {epoch}/{self.epochs}, step {step} of {steps}, loss {loss:.3f},"
            f" {self.images / per_step:,.0f} images/s, {to_go} to go",
            soft_wrap=True,
        )

    def epoch(self, row: dict[str, Any]) -> None:
        heads = [f"{accuracy:.1%}" for accuracy in row.get("head_accuracies", ()) if accuracy is not None]
        scores = [f"{words} {row[name]:.2%}  " for name, words in _SCORES.items() if name in row]
        err.print(
            f"{self.name}  epoch {row['epoch']:>{len(str(self.epochs))}}/{self.epochs}  loss {row['train_loss']:.4f}"
            f"  {''.join(scores)}{row['seconds']:.1f} s" + (f"  heads {' '.join(heads)}" if heads else ""),
            soft_wrap=True,
        )
        if skipped := row.get("skipped_images", ()):
            more = ", ..." if len(skipped) > _SHOWN else ""
            say(f"skipped {counted(len(skipped), 'bad image')}: {', '.join(skipped[:_SHOWN])}{more}")

    def stop_requested(self) -> bool:
        if self.signal.number and not self.told:
            self.told = True
            say("stopping after this step; a checkpoint will be written")
        return self.signal.number != 0

    @contextmanager
    def shown(self, resume_command: Callable[[], str]) -> Iterator[ConsoleWatcher]:
        """Show progress; the first signal asks training to stop, a second one ends it at once.

        Args:
            resume_command: gives what to tell a user who stopped it.
        """
        try:
            with stop_signals(self.signal), self.progress:
                yield self
        except Interrupted as error:
            say(f"stopped; continue with: {resume_command()}")
            error.signal = self.signal.number
            raise


def say(sentence: str) -> None:
    """Print a sentence for a person."""
    err.print(sentence, soft_wrap=True)


@contextmanager
def silent() -> Iterator[None]:
    """Print no sentence and no progress: of several processes, the first one alone does. Errors are still told."""
    err.quiet = True
    try:
        yield
    finally:
        err.quiet = False


def bars() -> Progress:
    """Bars with the time to go, which vanish at their end; none without a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show progress with the time to go, a bar for each piece of work; without a terminal, a line as each begins.

    Yields:
        A function that is told of a piece of work, its finished steps and its steps in total.
    """
    tasks: dict[str, TaskID] = {}
    with bars() as shown:

        def watch(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
                if not err.is_terminal:
                    say(what)
            shown.update(tasks[what], completed=done, total=total, visible=done < total)

        yield watch


@contextmanager
def work() -> Iterator[Callable[[str], None]]:
    """Show what a long command does now: in one line that vanishes at its end, or line by line without a terminal.

    Yields:
        A function that is called with a sentence before each piece of work.
    """
    if not err.is_terminal:
        yield say
        return
    with err.status("") as status:
        yield lambda sentence: status.update(Text(sentence))


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> None:
    """Print a table to standard output; the first `texts` columns are text, the others are numbers.

    No name in the first column is broken: in a terminal too narrow for the table, its lines are.
    """
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        cells = [row[index] for row in rows]
        longest = max((cell_len(word) for cell in cells for word in cell.split()), default=1)
        table.add_column(
            column,
            justify="left" if index < texts else "right",
            overflow="fold",
            min_width=min(longest, _NARROWEST) if index else longest,
            no_wrap=not index and not any(" " in cell for cell in cells),
        )
    for row in rows:
        table.add_row(*row)
    out = Console(**TEXT_ONLY)
    if not out.is_terminal:
        out.width = 1000  # a row is a line, for grep
    out.print(table, crop=False)


def show_json(value: Mapping[str, Any]) -> None:
    """Print JSON for machines to standard output."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def mebibytes(size: float) -> str:
    """Bytes as MiB."""
    return f"{size / 2**20:,.1f} MiB"

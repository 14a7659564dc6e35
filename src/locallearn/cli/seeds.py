"""`--seeds`: runs that differ by seed alone. Finished ones are used again, interrupted ones go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from locallearn._utils.errors import LocalLearnError
from locallearn.cli.console import say
from locallearn.cli.parser import Parser
from locallearn.cli.typed_command import typed_options
from locallearn.cli.workers import workers_of
from locallearn.training import Checkpoint, RunFolder, TrainSettings


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A run that a command needs.

    Attributes:
        name: for the progress bar and sentences.
        settings: of the run.
        folder: where it is or goes.
    """

    name: str
    settings: TrainSettings
    folder: RunFolder


def add_seeds(parser: Parser, *, first: str = "--seed") -> None:
    """Add the option.

    Args:
        parser: of the command.
        first: the words for the first seed, where a number of seeds is given.
    """
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=str,
        help=f"one number: how many seeds, from {first} on; several, as 0 1 2 or [0,4]: the seeds",
    )


def seeds_of(given: Sequence[str] | None, first: int = 0) -> list[int]:
    """The seeds that `--seeds` names; without it, the first one alone.

    Args:
        given: its words, such as `3`, `0 1 2`, `0,1,2` or `[0,4]`.
        first: of so many seeds.

    Raises:
        LocalLearnError: they are no seeds, none, or one twice; or a list stands beside `--seed`.
    """
    if given is None:
        return [first]
    text = " ".join(given).strip()
    has_brackets = f"{text[:1]}{text[-1:]}" in ("[]", "()")
    try:
        numbers = [int(word) for word in (text[1:-1] if has_brackets else text).replace(",", " ").split()]
    except ValueError as error:
        raise LocalLearnError(f"--seeds {text}: give how many, as 3, or a list of whole numbers, as 0 1 2.") from error
    if len(numbers) == 1 and not has_brackets and "," not in text:
        if numbers[0] < 1:
            raise LocalLearnError(f"--seeds {text}: give at least 1, or a list such as --seeds 0 1 2.")
        numbers = list(range(first, first + numbers[0]))
    elif "--seed" in typed_options():
        raise LocalLearnError(f"--seeds {text} names the seeds: leave out --seed, which goes with how many there are.")
    if not numbers:
        raise LocalLearnError(f"--seeds {text}: give at least 1, or a list such as --seeds 0 1 2.")
    if len(set(numbers)) < len(numbers):
        raise LocalLearnError(f"--seeds {text} names a seed twice: leave one out.")
    for seed in numbers:
        TrainSettings.refuse_seed(seed)
    return numbers


def train_missing(asked: Sequence[Asked], *, jobs: int, again: str) -> None:
    """Train the runs that are not finished.

    Args:
        asked: all of them, in the order in which they begin.
        jobs: how many processes train; with one, this one.
        again: tells a user who stops training what goes on with it.

    Raises:
        LocalLearnError: a folder holds a run with other settings, or one that had them not from the start; nothing is
            trained then.
    """
    missing = []
    for run in asked:
        RunFolder(run.folder.path.parent).refuse_run()
        settings, there = run.settings, run.folder.settings.exists()
        if there:
            run.folder.refuse_reuse(settings)
        if there and run.folder.result.exists():
            say(f"{run.name}: already finished in {run.folder.path}")
        else:
            missing.append((run, settings, "last" if there else None))
    with workers_of(jobs, again=again) as workers:

        def train_one(one: tuple[Asked, TrainSettings, Checkpoint | None]) -> None:
            run, settings, resume = one
            try:
                workers.train(run.name, settings, run.folder.path, resume)
            except BaseException:
                workers.stop()
                raise

        workers.map(train_one, missing)


def add_jobs(parser: Parser) -> None:
    """Add the option of how many runs are trained at a time."""
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each in a process with one thread")

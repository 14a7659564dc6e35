"""`--seeds`: runs that differ by seed alone. Finished ones are used again, interrupted ones go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from locallearn._utils.errors import LocalLearnError
from locallearn.cli.console import ConsoleWatcher, say
from locallearn.cli.parser import Parser, typed_options
from locallearn.training import RunFolder, TrainSettings, train


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
    text = " ".join(given)
    try:
        numbers = [int(word) for word in text.strip("[]() ").replace(",", " ").split()]
    except ValueError as error:
        raise LocalLearnError(f"--seeds {text}: give how many, as 3, or a list of whole numbers, as 0 1 2.") from error
    if len(numbers) == 1 and not text.startswith("["):
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


def train_missing(asked: Sequence[Asked], *, again: str) -> None:
    """Train the runs that are not finished, one after the other.

    Args:
        asked: all of them.
        again: tells a user who stops training what goes on with it.

    Raises:
        LocalLearnError: a folder holds a run with other settings; nothing is trained then.
    """
    there = {run.name for run in asked if run.folder.settings.exists()}
    for run in asked:
        if run.name in there:
            run.folder.refuse_other_settings(run.settings)
    for run in asked:
        if run.name in there and run.folder.result.exists():
            say(f"{run.name}: already finished in {run.folder.path}")
            continue
        watcher = ConsoleWatcher(run.name, run.settings.epochs, batch=run.settings.batch)
        with watcher.shown(lambda: again):
            resume = "last" if run.name in there else None
            train(run.settings, run.folder.path, resume=resume, watcher=watcher, say=say)

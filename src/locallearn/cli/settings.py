"""Settings as options, and settings of earlier runs; shared by the commands that read or write run folders."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.registry import trust_option
from locallearn.cli.parser import Parser, SettingsFile
from locallearn.cli.typed_command import typed_options
from locallearn.training import Checkpoint, RunFolder, program

Settings = TypeVar("Settings")


def add_settings(parser: Parser, kind: type, *, skip: set[str | int] | None = None) -> None:
    """Add all settings of a class as options, and `--config`."""
    parser.add_argument("--config", action=SettingsFile, help="read settings from a YAML file; later options win")
    parser.add_class_arguments(kind, as_group=False, skip=skip)


def add_run(parser: Parser, kind: type) -> None:
    """Add the options of a run folder, and all settings of a class."""
    add_out(parser, "the run folder")
    parser.add_argument("--resume", type=Path | None, help="continue the run in this folder, with its own settings")
    parser.add_argument("--from", type=Checkpoint, default="last", help="the checkpoint from which --resume goes on")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_settings(parser, kind)


def settings_from(kind: type[Settings], parser: Parser, config: Any, **changes: Any) -> Settings:
    """The parsed settings as an object."""
    values = parser.instantiate(config)
    names = {field.name for field in fields(kind)} - changes.keys()  # pyright: ignore[reportArgumentType]
    return kind(**{name: values[name] for name in names}, **changes)


def read_settings(kind: type[Settings], folder: RunFolder, command: Literal["train", "detect"] = "train") -> Settings:
    """Settings of an earlier run of a command.

    Raises:
        LocalLearnError: the folder holds no run of this kind, or its settings cannot be read.
    """
    folder.read_settings(command)
    parser = Parser(of=str(folder.settings))
    add_settings(parser, kind)
    return settings_from(kind, parser, parser.parse_args(["--config", str(folder.settings)]))


def runs_in(paths: Sequence[Path]) -> list[Path]:
    """Run folders; of a folder that is none but has some in it, such as the seeds of one rule, these."""
    found = []
    for path in paths:
        inner = (
            [] if RunFolder(path).settings.exists() else sorted(file.parent for file in path.glob("*/settings.yaml"))
        )
        found += inner or [path]
    return found


def resumed_checkpoint(
    config: Any, *, changeable: Sequence[str] = (), free: Sequence[str] = (), others: Sequence[str] = ()
) -> Checkpoint | None:
    """The checkpoint to go on from, or None for a new run.

    Args:
        config: with the options of `add_run`.
        changeable: options that may go with `--resume`, as may those of their classes.
        free: further ones, which change no result.
        others: words beside the options, which are refused as all other options are.
    """
    if config.resume is None:
        if config["from"] != "last":
            raise LocalLearnError(f"--from {config['from']} goes with --resume RUN: give the run to go on with.")
        return None
    allowed = {"--resume", "--from", "--json", *changeable, *free}
    typed = sorted(option for option in typed_options() if not allowed & {option, option.partition(".")[0]})
    if refused := [*others, *typed]:
        and_free = f", and {', '.join(dict.fromkeys(free))}, which change no result" if free else ""
        may = f"; only {', '.join(changeable)} may change{and_free}" if changeable else ""
        raise LocalLearnError(
            f"--resume takes all settings from the run it continues: leave out {' and '.join(refused)}{may}."
        )
    return config["from"]


def resume_command(command: str, folder: RunFolder) -> Callable[[], str]:
    """Gives the command that goes on with a run, once it is known whether that needs `--trust-code`."""
    return lambda: shlex.join([*program(), command, "--resume", str(folder.path), *trust_option()])


def add_out(parser: Parser, what: str, *, default: str = "a new one under runs/") -> None:
    """Add the options that say where a command writes.

    Args:
        parser: of the command.
        what: the folder is.
        default: the folder without them.
    """
    parser.add_argument("--out", type=Path | None, help=f"{what}; by default {default}")
    parser.add_argument("--name", type=str | None, help="its name under runs/, instead of --out")


def run_path(config: Any, name: str) -> Path:
    """The folder given by `--out` or `--name`, or a new one under runs/.

    Args:
        config: with the options of `add_out`.
        name: of the new one, before the time of day.

    Raises:
        LocalLearnError: both are given, or the name is that of no folder in runs/.
    """
    if config.name is None:
        return config.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if config.out is not None:
        raise LocalLearnError("--out and --name both say where the run goes: give one of them.")
    if config.name in ("", ".", "..") or Path(config.name).name != config.name:
        raise LocalLearnError(f"--name {config.name!r} is no name of a folder under runs/: give a path by --out.")
    return Path("runs") / config.name


def same_command(config: Any, path: Path) -> str:
    """How to go on with what stands in a folder of `run_path`: by the same command, which may have to name it."""
    return "the same command" if config.out or config.name else f"the same command with --out {path}"

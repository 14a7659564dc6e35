"""`locallearn train` and what it shares with `compare`."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any

from locallearn._errors import LocalLearnError
from locallearn._files import file_name
from locallearn.cli._console import ConsoleWatcher, mebibytes, say, show, show_json
from locallearn.cli._parser import Parser
from locallearn.training import Interrupted, RunFolder, TrainSettings, train

HELP = """Train one network by one rule.

examples:
  locallearn train --data digits --model resnet20 --rule dgl
  locallearn train --model resnet32 --data cifar10 --rule auglocal --rule.depth 4 --epochs 1
  locallearn train --rule dgl --with hpff man               # HPFF(MAN(DGL()))
  locallearn train --rule auglocal --modules infopro-16 --batch 1024 --optimizer.lr 0.8 --epochs 400 \\
                   --schedule paper-cosine
  locallearn train --data path/to/images --image-size 160 --workers 8 --bad-images skip    # class folders or tar shards
  locallearn train --config runs/ONE/settings.yaml --out runs/ANOTHER
  locallearn train --resume runs/ONE

--rule.help NAME shows the settings of a rule, --optimizer.help and --schedule.help likewise.
"""


def add_settings(parser: Parser, *, skip: set[str | int] | None = None) -> None:
    """Add all training settings as options, and `--config`."""
    parser.add_argument("--config", action="config", help="read settings from a YAML file; later options win")
    parser.add_class_arguments(TrainSettings, as_group=False, skip=skip)


def settings_from(parser: Parser, config: Any, **changes: Any) -> TrainSettings:
    """The settings that were parsed."""
    values = parser.instantiate(config)
    fields = {field.name for field in dataclasses.fields(TrainSettings)} - changes.keys()
    return TrainSettings(**{name: values[name] for name in fields}, **changes)


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn train [options]")
    parser.add_argument("--out", type=Path | None, help="the run folder; by default a new one under runs/")
    parser.add_argument("--resume", type=Path | None, help="go on with the run in this folder, by its own settings")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_settings(parser)
    return parser


def run(config: Any) -> None:
    """Train, and print the result."""
    if config.resume is not None:
        folder = RunFolder(config.resume)
        settings, resume = read_settings(folder), True
        if config.out is not None or settings_from(parser(), config) != TrainSettings():
            raise LocalLearnError(
                "--resume takes all settings from the run it goes on with: leave out the other options."
            )
    else:
        settings, resume = settings_from(parser(), config), False
        name = file_name(f"{settings.data}-{settings.model}-{settings.rule}".lower())
        folder = RunFolder(config.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    result = train_shown(str(settings.rule), settings, folder, resume=resume)
    if config.json:
        show_json(result)
        return
    rows = [
        ("test accuracy", f"{result['test_accuracy']:.2%} (best {result['best_accuracy']:.2%})"),
        ("seconds per epoch", f"{result['seconds_per_epoch']:.1f}"),
        ("peak activation memory", mebibytes(result["peak_activation_bytes"])),
        ("parameters", f"{result['backbone_parameters']:,} + {result['auxiliary_parameters']:,} auxiliary"),
        ("run folder", result["folder"]),
    ]
    show("result", ("", ""), rows, texts=2)


def read_settings(folder: RunFolder) -> TrainSettings:
    """Settings of an earlier run.

    Raises:
        LocalLearnError: the folder holds no run of this kind, or its settings cannot be read.
    """
    folder.read_settings("train")
    parser = Parser(of_file=folder.settings)
    add_settings(parser)
    return settings_from(parser, parser.parse_args(["--config", str(folder.settings)]))


def train_shown(
    name: str, settings: TrainSettings, folder: RunFolder, *, resume: bool, again: str | None = None
) -> dict[str, Any]:
    """Train with progress on the terminal; `again` is what a stopped user is told to do.

    Raises:
        Interrupted: by Ctrl-C, after a checkpoint.
    """
    with ConsoleWatcher(name, settings.epochs).shown() as watcher:
        try:
            return train(settings, folder.path, resume=resume, watcher=watcher, say=say)
        except Interrupted:
            say(f"stopped; go on with: {again or f'locallearn train --resume {folder.path}'}")
            raise

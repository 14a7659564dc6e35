"""`locallearn train`: one network by one rule."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from locallearn._utils.atomic_files import file_name
from locallearn._utils.errors import LocalLearnError
from locallearn.cli.console import ConsoleWatcher, mebibytes, say, show, show_json, silent
from locallearn.cli.dry_run import show_assignment
from locallearn.cli.parser import COMMAND, Parser
from locallearn.cli.recipe_option import add_recipe
from locallearn.cli.settings import add_run, read_settings, resume_command, resumed_checkpoint, run_path, settings_from
from locallearn.training import OF_PROCESSES, Launch, RunFolder, TrainSettings, train

HELP = """Train one network by one rule.

examples:
  locallearn train --data digits --model resnet20 --rule dgl
  locallearn train --model resnet32 --data cifar10 --rule auglocal --rule.depth 4 --epochs 1
  locallearn train --rule "hpff(man(dgl))"                   # wrappers around a rule
  locallearn train --rule auglocal --modules infopro-16 --batch 1024 --optimizer.lr 0.8 --epochs 400 \\
                   --schedule paper-cosine
  locallearn train --data path/to/images --image-size 160 --workers 8 --bad-images skip    # class folders or tar shards
  locallearn train --config runs/ONE/settings.yaml --out runs/ANOTHER
  locallearn train --validation 0.1                         # choose the best epoch on a tenth of the training images
  locallearn train --init-from runs/ONE --data stl10        # start from its weights, with a new classifier
  locallearn train --resume runs/ONE                        # continue, with the same bits
  locallearn train --resume runs/ONE --epochs 100           # for more epochs; or by another --optimizer.lr, --schedule
  torchrun --nproc-per-node 2 -m locallearn train --parallel data    # each process trains on half of every batch
  locallearn train --rule dgl --parallel modules=2 --dry-run         # which process would train which local modules
  locallearn train --recipe hpff/table1/cifar10-resnet32-dgl --seed 1    # a published result; options override it

--rule.help NAME shows a rule's settings; --optimizer.help NAME and --schedule.help NAME do the same.
"""

_CHANGEABLE = {"--epochs": "epochs", "--optimizer.lr": "optimizer", "--schedule": "schedule"}
"""Options that may go with --resume, and their settings."""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn train [options]")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="of --parallel modules=2, print which process would train which modules, in what time and memory, and end",
    )
    add_run(parser, TrainSettings)
    add_recipe(parser)
    return parser


def run(config: Any) -> None:
    """Train, and print the result."""
    given = settings_from(TrainSettings, parser(), config)
    launch = Launch.of()
    if config.dry_run:
        if launch is None or launch.rank == 0:
            show_assignment(given, json=config.json)
        return
    changing = _changing()
    others = config.out is not None or not _asks_for_nothing_else(given, changing)
    if (resume := resumed_checkpoint(config, others=others)) is not None:
        folder = RunFolder(config.resume)
        settings = _for_these_processes(given, read_settings(TrainSettings, folder), launch)
        settings = _changed(settings, given, changing)
    else:
        settings = given
        name = file_name(f"{settings.data}-{settings.model}-{settings.rule}".lower())
        folder = RunFolder(run_path(config.out, name))
        if launch is not None and launch.most_restarts and config.out is None:
            raise LocalLearnError(
                "torchrun --max-restarts needs a run folder to find its checkpoint in again: give it by --out FOLDER."
            )
    first = launch is None or launch.rank == 0
    watcher = ConsoleWatcher(str(settings.rule), settings.epochs, batch=settings.batch)
    with nullcontext() if first else silent(), watcher.shown(resume_command("train", folder)):
        result = train(settings, folder.path, resume=resume, changing=changing, watcher=watcher, say=say)
    if not first:
        return
    if config.json:
        show_json(result)
        return
    chosen = f"the best on the {result['best_chosen_on']} images"
    rows = [
        ("test accuracy", f"{result['test_accuracy']:.2%}"),
        (f"test accuracy after epoch {result['best_epoch']}, {chosen}", f"{result['best_accuracy']:.2%}"),
        *(("top-5 accuracy", f"{result[name]:.2%}") for name in ("test_top5_accuracy",) if name in result),
        ("seconds per epoch", f"{result['seconds_per_epoch']:.1f}"),
        ("peak activation memory", mebibytes(result["peak_activation_bytes"])),
        ("parameters", f"{result['backbone_parameters']:,} + {result['auxiliary_parameters']:,} auxiliary"),
        ("run folder", result["folder"]),
    ]
    show("result", ("", ""), rows, texts=2)


def _changing() -> set[str]:
    """The settings with which a run may go on otherwise, of those that the command line names."""
    arguments, _ = COMMAND.get() or ((), None)
    typed = {argument.partition("=")[0] for argument in arguments}
    asked = {setting for option, setting in _CHANGEABLE.items() if option in typed}
    return asked | {"schedule" for option in typed if option.startswith("--schedule.")}


def _changed(settings: TrainSettings, given: TrainSettings, changing: set[str]) -> TrainSettings:
    """Settings with those that change as they are given, of the optimizer its learning rate alone."""
    values = {name: getattr(given, name) for name in changing}
    if "optimizer" in values:
        values["optimizer"] = replace(settings.optimizer, lr=given.optimizer.lr)
    return replace(settings, **values)


def _asks_for_nothing_else(given: TrainSettings, changing: set[str]) -> bool:
    """Whether all settings are defaults but those of processes and those that change."""
    defaults = TrainSettings()
    rest = replace(given, **{name: getattr(defaults, name) for name in OF_PROCESSES})
    return _changed(rest, defaults, changing) == defaults


def _for_these_processes(given: TrainSettings, before: TrainSettings, launch: Launch | None) -> TrainSettings:
    """A run's settings, for the processes that go on with it: as given, or as before where torchrun started several."""
    if given.parallel is None and launch is not None and launch.count > 1:
        return before
    return replace(before, **{name: getattr(given, name) for name in OF_PROCESSES})

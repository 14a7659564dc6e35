"""`locallearn train`: one network by one rule."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import file_name, write_json
from locallearn._utils.errors import LocalLearnError
from locallearn.cli.console import ConsoleWatcher, mebibytes, say, show, show_json, silent
from locallearn.cli.dry_run import show_assignment
from locallearn.cli.parser import Parser
from locallearn.cli.recipe_option import add_recipe
from locallearn.cli.seeds import Asked, add_jobs, add_seeds, seeds_of, train_missing
from locallearn.cli.settings import (
    add_run,
    read_settings,
    resume_command,
    resumed_checkpoint,
    run_path,
    same_command,
    settings_from,
)
from locallearn.cli.typed_command import typed_options
from locallearn.report import group_runs, numbers, read_run
from locallearn.training import NO_RESULT, OF_PROCESSES, Launch, RunFolder, TrainSettings, train

HELP = """Train one network by one rule.

examples:
  locallearn train --data digits --model resnet20 --rule dgl
  locallearn train --model resnet32 --data cifar10 --rule auglocal --rule.depth 4 --epochs 1
  locallearn train --rule "man(dgl)"                         # wrappers around a rule
  locallearn train --rule auglocal --modules infopro-16 --batch 1024 --optimizer.lr 0.8 --epochs 400 \\
                   --schedule paper-cosine
  locallearn train --data path/to/images --image-size 160 --workers 8 --bad-images skip    # class folders or tar shards
  locallearn train --config runs/ONE/settings.yaml --out runs/ANOTHER
  locallearn train --rule dgl --seeds 3 --name dgl          # three runs, runs/dgl/seed0 to seed2: mean and deviation
  locallearn train --validation 0.1                         # choose the best epoch on a tenth of the training images
  locallearn train --validation 0.1 --early-stopping 5      # end after 5 epochs without a better one
  locallearn train --init-from runs/ONE --data stl10        # start from its weights, with a new classifier
  locallearn train --init-from runs/ONE --data stl10 --freeze "stem|layer1.*"    # of which some layers stay as they are
  locallearn train --resume runs/ONE                        # continue, with the same bits
  locallearn train --resume runs/ONE --epochs 100           # for more epochs; also with --optimizer.lr, --schedule,
                                                            # --early-stopping
  locallearn train --resume runs/ONE --memory least         # where memory ran out: with the same bits
  locallearn train --resume runs/ONE --data-dir elsewhere   # on another machine; also --device, --threads
  torchrun --nproc-per-node 2 -m locallearn train --parallel data    # each process trains on half of every batch
  locallearn train --rule dgl --parallel modules=2 --dry-run         # which process would train which local modules
  locallearn train --recipe hpff/table1/cifar10-resnet32-dgl --seed 1    # a published result; options override it

--rule.help NAME shows a rule's settings; --optimizer.help NAME and --schedule.help NAME do the same.
"""

_CHANGEABLE = {
    "--epochs": "epochs",
    "--optimizer.lr": "optimizer",
    "--schedule": "schedule",
    "--early-stopping": "early_stopping",
    "--device": "device",
    "--threads": "threads",
    "--memory": "memory",
}
"""Options that may go with --resume, and their settings."""

_OF_PROCESSES = {f"--{name.replace('_', '-')}": name for name in OF_PROCESSES}
_NO_RESULT = {f"--{name.replace('_', '-')}": name for name in NO_RESULT}


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn train [options]")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="of --parallel modules=2, print which process would train which modules, in what time and memory, and end",
    )
    add_seeds(parser)
    add_jobs(parser)
    add_run(parser, TrainSettings)
    add_recipe(parser)
    return parser


def run(config: Any) -> None:
    """Train, and print the result."""
    launch = Launch.of()
    if config.seeds is not None:
        _train_seeds(config, launch)
        return
    if config.jobs != 1:
        raise LocalLearnError("--jobs goes with --seeds: a single run has no others beside it.")
    changing = _changing()
    resume = resumed_checkpoint(config, changeable=[*_CHANGEABLE], free=[*_OF_PROCESSES, *_NO_RESULT])
    if resume is not None:
        folder = RunFolder(config.resume)
        settings = _changed(read_settings(TrainSettings, folder), config, changing, launch)
    else:
        settings = settings_from(TrainSettings, parser(), config)
        if config.dry_run:
            if launch is None or launch.rank == 0:
                show_assignment(settings, json=config.json)
            return
        folder = RunFolder(run_path(config, _name_of(settings)))
        if launch is not None and launch.most_restarts and config.out is config.name is None:
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
    peak = result["peak_activation_bytes"]
    rows = [
        ("test accuracy", f"{result['test_accuracy']:.2%}"),
        (f"test accuracy after epoch {result['best_epoch']}, {chosen}", f"{result['best_accuracy']:.2%}"),
        *(("top-5 accuracy", f"{result[name]:.2%}") for name in ("test_top5_accuracy",) if name in result),
        ("seconds per epoch", f"{result['seconds_per_epoch']:.1f}"),
        ("peak activation memory", "not predicted" if peak is None else mebibytes(peak)),
        ("parameters", f"{result['backbone_parameters']:,} + {result['auxiliary_parameters']:,} auxiliary"),
        ("run folder", result["folder"]),
    ]
    show("result", ("", ""), rows, texts=2)


def _name_of(settings: TrainSettings) -> str:
    """The first part of the name of a new folder."""
    return file_name(f"{settings.data}-{settings.model}-{settings.rule}".lower())


def _train_seeds(config: Any, launch: Launch | None) -> None:
    """Train from each seed what is not trained yet, and print mean, standard deviation and every value."""
    settings = settings_from(TrainSettings, parser(), config)
    if config.resume is not None or config["from"] != "last":
        raise LocalLearnError("--seeds goes on with its runs by itself: give the same command again, without --resume.")
    if config.dry_run or settings.parallel is not None or (launch is not None and launch.count > 1):
        raise LocalLearnError("--seeds trains in one process: leave out --parallel and torchrun, or give one --seed.")
    seeds, out = seeds_of(config.seeds, settings.seed), run_path(config, _name_of(settings))
    rule = str(settings.rule)
    asked = [
        Asked(name=f"{rule}, seed {seed}", settings=replace(settings, seed=seed), folder=RunFolder(out / f"seed{seed}"))
        for seed in seeds
    ]
    train_missing(asked, jobs=config.jobs, again=same_command(config, out))
    _show_seeds(asked, out, as_json=config.json)


def _show_seeds(asked: list[Asked], out: Path, *, as_json: bool) -> None:
    """Print the results of runs that differ by seed, and write them into their folder."""
    (group,) = group_runs([read_run(run.folder.path, run.settings) for run in asked])
    (result,) = numbers([group]).values()
    write_json(out / "seeds.json", result)
    if as_json:
        show_json(result)
        return
    rows = [
        (
            f"seed {run.settings.seed}",
            str(run.path),
            f"{run.accuracy:.2%}",
            f"{run.best_accuracy:.2%}",
            f"{run.result['seconds_per_epoch']:.1f}",
        )
        for run in group.runs
    ]
    mean, best = (of.percent for of in (group.accuracy, group.best_accuracy))
    title = "mean ± standard deviation" if len(rows) > 1 else "mean"
    rows.append((title, str(out), mean, best, f"{group.seconds.mean:.1f}"))
    columns = ("", "run folder", "test accuracy", f"best epoch, by {result['best_chosen_on']}", "seconds per epoch")
    show(f"{group.settings.data}, {group.settings.model}, {group.label}", columns, rows, texts=2)


def _changing() -> set[str]:
    """The settings with which a run may go on otherwise, of those that the command line names."""
    typed = typed_options()
    asked = {setting for option, setting in _CHANGEABLE.items() if option in typed}
    return asked | {"schedule" for option in typed if option.startswith("--schedule.")}


def _changed(settings: TrainSettings, config: Any, changing: set[str], launch: Launch | None) -> TrainSettings:
    """A run's settings, with those that change as the command has them, of the optimizer its learning rate alone.

    Settings of processes are the command's too; those that it does not name are the run's where torchrun started
    several and `--parallel` is none of them.
    """
    given, typed = parser().instantiate(config), typed_options()
    several = given.parallel is None and launch is not None and launch.count > 1
    of_processes = [name for option, name in _OF_PROCESSES.items() if option in typed or not several]
    no_result = [name for option, name in _NO_RESULT.items() if option in typed]
    values = {name: given[name] for name in (*changing, *of_processes, *no_result)}
    if "optimizer" in values:
        values["optimizer"] = replace(settings.optimizer, lr=given.optimizer.lr)
    if values.get("early_stopping") is not None and settings.validation is None:
        raise LocalLearnError(
            "the run holds out no validation images, which --early-stopping needs: leave it out, or train a new run"
            " with --validation 0.1."
        )
    if "schedule" in values and "--schedule" not in typed:
        own, other = (type(one.schedule).__name__ for one in (settings, given))
        if own != other:
            raise LocalLearnError(
                f"the run has the schedule {own}, and the options are of {other}: give --schedule too."
            )
    return replace(settings, **values)

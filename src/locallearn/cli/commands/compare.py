"""`locallearn compare`: several rules and seeds side by side."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import file_name, write_json
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning
from locallearn.cli.console import ConsoleWatcher, say, show_json
from locallearn.cli.parser import Parser, parse_rule
from locallearn.cli.settings import add_settings, read_settings, run_path, settings_from
from locallearn.cli.tables import FORMATS, show_runs, show_table
from locallearn.report import (
    group_runs,
    numbers,
    read_run,
    refuse_other_data,
    refuse_same_folder,
    summary,
    write_curves,
)
from locallearn.rules import BP
from locallearn.training import OF_PROCESSES, RunFolder, TrainSettings, build, data_of, train

HELP = """Train by several rules, one after the other: same first weights, same batches. Or compare runs that are there.

examples:
  locallearn compare --data digits --model resnet20 --epochs 10
  locallearn compare --rules bp dgl "auglocal(depth=3)" --seeds 3 --modules infopro-16 --out runs/mine
  locallearn compare --rules bp dgl "hpff(dgl)" "man(dgl)" "hpff(man(auglocal(depth=3)))" mlaan
  locallearn compare runs/BP runs/DGL --format latex

Each rule and seed gets a run folder under --out, beside compare.json and the curves in figures/. To continue a stopped
comparison, give the same command again with the same --out: finished runs are used again. Runs that differ by seed
alone are one line, with mean and standard deviation.
"""

DEFAULT_RULES = ["bp", "checkpoint", "dgl", "auglocal"]

_ALONE = {name: getattr(TrainSettings(), name) for name in OF_PROCESSES}


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn compare [RUN ...] [options]")
    parser.add_argument("runs", nargs="*", type=Path, help="run folders to compare, instead of training")
    parser.add_argument("--rules", nargs="+", default=DEFAULT_RULES, help="rules, with settings in brackets")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[1], help="one number: how many, from --seed on; several: the seeds"
    )
    parser.add_argument("--out", type=Path | None, help="folder of the run folders; by default a new one under runs/")
    parser.add_argument("--format", choices=FORMATS, default="table", help="of the result")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_settings(parser, TrainSettings, skip={"rule", *OF_PROCESSES})
    return parser


def run(config: Any) -> None:
    """Train by each rule from each seed, or read the given runs; print the table."""
    out = config.out
    if config.runs:
        _refuse_training_options(config)
        folders = [RunFolder(path) for path in config.runs]
    else:
        out = run_path(config.out, "compare")
        folders = _trained(config, out)
    runs = [read_run(folder.path, read_settings(TrainSettings, folder)) for folder in folders]
    refuse_same_folder(runs)
    refuse_other_data(runs)
    groups = group_runs(runs)
    if out is not None:
        write_curves(groups, out / "figures")
        write_json(out / "compare.json", numbers(groups))
    if config.json:
        show_json(numbers(groups))
    elif config.format == "csv":
        show_runs(groups)
    else:
        settings = runs[0].settings
        show_table(f"{settings.data}, {settings.model}", summary(groups, {}), config.format)
    if out is not None:
        say(f"run folders and curves: {out}")


def _trained(config: Any, out: Path) -> list[RunFolder]:
    """The folders of all rules and seeds, once each is trained."""
    rules = {text: parse_rule(text) for text in config.rules}
    seeds = _seeds(config.seeds, config.seed)
    settings = {
        text: settings_from(TrainSettings, parser(), config, rule=rule, **_ALONE) for text, rule in rules.items()
    }
    for text, same in combinations(config.rules, 2):
        if rules[text] == rules[same]:
            raise LocalLearnError(f"--rules {text} and {same} are one rule: leave one out.")
    images = data_of(next(iter(settings.values())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LocalLearnWarning)  # shown when the rule is trained
        for rule_settings in settings.values():  # fails before any training
            build(rule_settings, images)
    folders = []
    for seed in seeds:  # seed by seed: a stopped comparison has whole rows
        for text, own in settings.items():
            name = text if seed == config.seed else f"{text}-seed{seed}"
            folder = RunFolder(out / file_name(name))
            _train_or_reuse(name, replace(own, seed=seed), folder)
            folders.append(folder)
    return folders


def _train_or_reuse(name: str, settings: TrainSettings, folder: RunFolder) -> None:
    resume = folder.settings.exists()
    if resume:
        folder.refuse_other_settings(settings)
    if resume and folder.result.exists():
        say(f"{name}: already finished in {folder.path}")
        return
    again = f"the same command with --out {folder.path.parent}"
    with ConsoleWatcher(name, settings.epochs, batch=settings.batch).shown(lambda: again) as watcher:
        train(settings, folder.path, resume="last" if resume else None, watcher=watcher, say=say)


def _seeds(given: Sequence[int], first: int) -> list[int]:
    if len(given) > 1:
        if len(set(given)) < len(given):
            raise LocalLearnError(f"--seeds {' '.join(map(str, given))} names a seed twice: leave one out.")
        return list(given)
    if given[0] < 1:
        raise LocalLearnError(f"--seeds {given[0]}: give at least 1, or a list such as --seeds 0 1 2.")
    return list(range(first, first + given[0]))


def _refuse_training_options(config: Any) -> None:
    given = settings_from(TrainSettings, parser(), config, rule=BP(), **_ALONE)
    if given != TrainSettings(rule=BP()) or config.rules != DEFAULT_RULES or config.seeds != [1]:
        raise LocalLearnError(
            "run folders are compared as they are: leave out the options of training, or give no run folder."
        )

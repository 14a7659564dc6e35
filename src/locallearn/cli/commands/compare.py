"""`locallearn compare`: several rules and seeds side by side."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import file_name, read_json, write_json
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning
from locallearn.cli.console import say, show_json
from locallearn.cli.parser import Parser, parse_rule
from locallearn.cli.seeds import Asked, add_jobs, add_seeds, seeds_of, train_missing
from locallearn.cli.settings import (
    add_out,
    add_settings,
    read_settings,
    run_path,
    runs_in,
    same_command,
    settings_from,
)
from locallearn.cli.tables import FORMATS, show_runs, show_table
from locallearn.cli.typed_command import typed_options
from locallearn.report import (
    Group,
    differing_conditions,
    group_runs,
    numbers,
    read_run,
    refuse_same_folder,
    setting_text,
    summary,
    write_curves,
)
from locallearn.training import OF_PROCESSES, RunFolder, TrainSettings, build, data_of, refuse_other_data

HELP = """Train by several rules, one after the other: same first weights, same batches. Or compare runs that are there.

examples:
  locallearn compare --data digits --model resnet20 --epochs 10
  locallearn compare --rules bp dgl "auglocal(depth=3)" --seeds 3 --modules infopro-16 --out runs/mine
  locallearn compare --rules bp dgl "hpff(dgl)" "man(dgl)" "hpff(man(auglocal(depth=3)))" mlaan
  locallearn compare --rules bp dgl --seeds 3 --jobs 2 --name mine                    # two runs at a time
  locallearn compare runs/BP runs/DGL --format latex

Each rule and seed gets a run folder under --out, beside compare.json and the curves in figures/. To continue a stopped
comparison, give the same command again with the same --out: finished runs are used again. Runs that differ by seed
alone are one line, with mean and standard deviation.

A RUN is a run folder, or a folder of run folders, such as runs/mine. Nothing is trained then, and without --out or
--name nothing is written. Each run is measured against BP on the same data, network, image size, epochs, batch and
number of training images.
"""

DEFAULT_RULES = ["bp", "checkpoint", "dgl", "auglocal"]

_OF_RUNS = {"--out", "--name", "--format", "--json"}
"""Options that go with run folders."""

_ALONE = {name: getattr(TrainSettings(), name) for name in OF_PROCESSES}


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn compare [RUN ...] [options]")
    parser.add_argument("runs", nargs="*", type=Path, help="run folders, or folders of them, instead of training")
    parser.add_argument("--rules", nargs="+", default=DEFAULT_RULES, help="rules, with settings in brackets")
    add_seeds(parser)
    add_jobs(parser)
    add_out(parser, "folder of runs, compare.json and figures/", default="a new one under runs/, or none with RUN")
    parser.add_argument("--format", choices=FORMATS, help="of the result; by default a table for the terminal")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_settings(parser, TrainSettings, skip={"rule", *OF_PROCESSES})
    return parser


def run(config: Any) -> None:
    """Train by each rule from each seed, or read the given runs; print the table."""
    if config.json and config.format is not None:
        raise LocalLearnError(
            f"--json and --format {config.format} both say how the result is printed: give one of them."
        )
    if config.runs:
        _refuse_training_options()
        folders = [RunFolder(path) for path in runs_in(config.runs)]
        out = None if config.out is config.name is None else run_path(config, "compare")
        if out is not None:
            RunFolder(out).refuse_run()
            _refuse_other_comparison(out, folders)
    else:
        out = run_path(config, "compare")
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
        show_table(f"{settings.data}, {settings.model}", summary(groups, {}), config.format or "table")
    _say_what_differs(groups)
    if out is not None:
        say(f"compare.json and curves: {out}" if config.runs else f"run folders and curves: {out}")


def _say_what_differs(groups: Sequence[Group]) -> None:
    """A line for each group with the settings, beside rule and seed, by which groups differ."""
    if different := differing_conditions(groups):
        say("runs differ in more than rule and seed:")
        for index, group in enumerate(groups):
            own = (f"{name} {setting_text(values[index])}" for name, values in different.items())
            say(f"  {group.label}: {'; '.join(own)}")


def _trained(config: Any, out: Path) -> list[RunFolder]:
    """The folders of all rules and seeds, once each is trained."""
    rules = {text: parse_rule(text) for text in config.rules}
    seeds = seeds_of(config.seeds, config.seed)
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
    asked = []
    for seed in seeds:  # seed by seed: a stopped comparison has whole rows
        for text, own in settings.items():
            name = text if seed == config.seed else f"{text}-seed{seed}"
            asked.append(Asked(name=name, settings=replace(own, seed=seed), folder=RunFolder(out / file_name(name))))
    _refuse_other_comparison(out, [run.folder for run in asked])
    train_missing(asked, jobs=config.jobs, again=same_command(config, out))
    return [run.folder for run in asked]


def _refuse_other_comparison(out: Path, folders: Sequence[RunFolder]) -> None:
    """Refuse a folder with the comparison of more runs than these, which would be lost."""
    file = out / "compare.json"
    try:
        groups = read_json(file).values() if file.exists() else ()
        known = {Path(path) for group in groups for path in group["folders"]}
    except (AttributeError, KeyError, TypeError) as error:
        raise LocalLearnError(f"{file} is no comparison: remove it, or choose another folder by --out.") from error
    given = {folder.path.resolve() for folder in folders}
    if lost := sorted(path for path in known if path.exists() and path.resolve() not in given):
        raise LocalLearnError(
            f"{file} compares other runs too, such as {lost[0]}: give them too, or choose another folder by --out."
        )


def _refuse_training_options() -> None:
    if others := typed_options() - _OF_RUNS:
        raise LocalLearnError(
            f"run folders are compared as they are: leave out {', '.join(sorted(others))}, or give no run folder."
        )

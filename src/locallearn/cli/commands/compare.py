"""`locallearn compare`: several rules side by side in one run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locallearn._utils.atomic_files import file_name, read_json, write_json
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning
from locallearn.cli.console import ConsoleWatcher, mebibytes, say, show, show_json
from locallearn.cli.parser import Parser, parse_rule
from locallearn.cli.settings import add_settings, run_path, settings_from
from locallearn.training import OF_PROCESSES, RunFolder, TrainSettings, as_yaml, build, data_of, draw_curves, train

HELP = """Train by several rules, one after the other: same first weights, same batches.

examples:
  locallearn compare --data digits --model resnet20 --epochs 10
  locallearn compare --rules bp dgl "auglocal(depth=3)" --modules infopro-16 --out runs/mine
  locallearn compare --rules bp dgl "hpff(dgl)" "man(dgl)" "hpff(man(auglocal(depth=3)))" mlaan

Each rule gets a run folder under --out, beside curves.png and compare.json. To continue a stopped comparison, give the
same command again with the same --out.
"""

DEFAULT_RULES = ["bp", "checkpoint", "dgl", "auglocal"]

_COLUMNS = {
    "test_accuracy": ("test accuracy", "{:.2%}".format),
    "test_top5_accuracy": ("top-5", "{:.2%}".format),
    "peak_activation_bytes": ("peak activations", mebibytes),
    "seconds_per_epoch": ("s / epoch", "{:.2f}".format),
    "parameters": ("parameters in training", "{:,}".format),
}

_ALONE = {name: getattr(TrainSettings(), name) for name in OF_PROCESSES}

_RESULTS = _COLUMNS.keys() - {"parameters", "test_top5_accuracy"} | {"backbone_parameters", "auxiliary_parameters"}
"""What `result.json` has of these."""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn compare [options]")
    parser.add_argument("--rules", nargs="+", default=DEFAULT_RULES, help="rules, with settings in brackets")
    parser.add_argument("--out", type=Path | None, help="folder of the run folders; by default a new one under runs/")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_settings(parser, TrainSettings, skip={"rule", *OF_PROCESSES})
    return parser


def run(config: Any) -> None:
    """Train by each rule, and print the table."""
    rules = {text: parse_rule(text) for text in config.rules}
    settings = {
        text: settings_from(TrainSettings, parser(), config, rule=rule, **_ALONE) for text, rule in rules.items()
    }
    out = run_path(config.out, "compare")
    images = data_of(next(iter(settings.values())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LocalLearnWarning)  # shown when the rule is trained
        for rule_settings in settings.values():  # fails before any training
            build(rule_settings, images)
    folders = {text: RunFolder(out / file_name(text)) for text in settings}
    results = {text: _train_or_reuse(text, settings[text], folder) for text, folder in folders.items()}
    metrics = {
        text: folder.rows_before(settings[text].epochs + 1, "train_loss", "test_accuracy")
        for text, folder in folders.items()
    }
    draw_curves(metrics, out / "curves.png")
    write_json(out / "compare.json", results)
    if config.json:
        show_json(results)
        return
    baseline = "bp" if "bp" in results else next(iter(results))
    ratio = "x BP" if baseline == "bp" else f"x {baseline}"
    shown = {name: column for name, column in _COLUMNS.items() if name in results[baseline]}
    columns = ["rule", *(column for title, _ in shown.values() for column in (title, ratio))]
    rows = [[text, *_cells(shown, result, results[baseline])] for text, result in results.items()]
    show(f"{config.data}, {config.model}, {config.epochs} epochs", columns, rows)
    say(f"run folders and curves: {out}")


def _train_or_reuse(text: str, settings: Any, folder: RunFolder) -> dict[str, Any]:
    resume = folder.settings.exists()
    if resume:
        folder.refuse_other_settings(as_yaml(settings))
    if resume and folder.result.exists():
        say(f"{text}: already finished in {folder.path}")
        result = read_json(folder.result)
        if not isinstance(result, dict) or not result.keys() >= _RESULTS:
            raise LocalLearnError(f"{folder.result} is damaged: give {folder.path} to locallearn train --resume.")
    else:
        again = f"the same command with --out {folder.path.parent}"
        with ConsoleWatcher(text, settings.epochs).shown(lambda: again) as watcher:
            result = train(settings, folder.path, resume="last" if resume else None, watcher=watcher, say=say)
    return result | {"parameters": result["backbone_parameters"] + result["auxiliary_parameters"]}


def _cells(shown: dict[str, Any], result: dict[str, Any], baseline: dict[str, Any]) -> Iterator[str]:
    """The value of each shown column, and its ratio to the baseline's."""
    for name, (_, form) in shown.items():
        yield form(result[name])
        yield f"{result[name] / baseline[name]:.2f}" if baseline[name] else "-"

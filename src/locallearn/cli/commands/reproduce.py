"""`locallearn reproduce`: a table of the papers, published and here."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from locallearn._utils.errors import LocalLearnError
from locallearn.cli.console import ConsoleWatcher, progress, say, show, show_json
from locallearn.cli.parser import Parser
from locallearn.recipes import Recipe, rows_of
from locallearn.recipes.accuracies import Reproduction
from locallearn.recipes.budgets import Budget
from locallearn.recipes.catalogue import matching_rows
from locallearn.recipes.costs import cost_rows, has_costs
from locallearn.recipes.page import accuracy_columns, bp_accuracies, cost_columns, title_of
from locallearn.recipes.results import save, source
from locallearn.recipes.runs import Runs
from locallearn.training import TrainSettings, Watcher

HELP = """Reproduce a table of the papers, beside its published numbers.

examples:
  locallearn reproduce hpff/table3                           # costs: predicted memory and multiply-accumulates
  locallearn reproduce auglocal/table4 --rows resnet110      # some of its rows
  locallearn reproduce hpff/table4a --budget small --seeds 3 --save docs/results
  locallearn reproduce hpff/table4a --budget smoke           # seconds: does it run?
  locallearn list recipes                                    # all tables and rows

Without --budget the costs are counted on fake tensors: no GPU, no data, no training. With one, accuracies are trained:
full, with the papers' epochs; small, 10,000 images and 15 epochs; smoke, seconds. Finished runs under --out are used
again, whichever table they were for, and stopped ones go on; so are those in --runs. The same command may run several
times at once: each trains what no other does.
"""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn reproduce TABLE [options]")
    parser.add_argument("table", type=str, help="a table, such as hpff/table3")
    parser.add_argument(
        "--rows", nargs="+", type=str, default=["*"], help="parts of the rows' names; * stands for anything"
    )
    parser.add_argument("--budget", type=Budget | None, help="how much is trained; by default only costs are counted")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="how many seeds, from 0, or several seeds")
    parser.add_argument("--lr", type=float | None, help="the small budget's learning rate; by default chosen")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="folder of the run folders")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="other folders with runs to be used again")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--device", type=str, default="auto", help="as for train")
    parser.add_argument("--threads", type=int | None, help="as for train")
    parser.add_argument("--save", type=Path | None, help="write the table and a page of all tables into this folder")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


def run(config: Any) -> None:
    """Reproduce the table, print and save it."""
    rows = matching_rows(rows_of(config.table), config.rows)
    what = config.budget or "cost"
    found = _accuracies(config, rows) if config.budget else _costs(config, rows)
    if config.save is not None:
        say(f"saved: {save(config.table, found, config.save, command=_command(config), what=what)}")
    plain = [asdict(row) for row in found]
    if config.json:
        show_json({"table": config.table, "what": what, **source(), "rows": plain})
        return
    shown = accuracy_columns(plain, bp_accuracies([{"rows": plain}])) if config.budget else cost_columns(plain)
    show(f"{title_of(config.table)}, {what}", *shown)
    devices = dict.fromkeys(row["device"] for row in plain if row.get("device"))
    say(", ".join([*(f"{name} {value}" for name, value in source().items() if value), *devices]))


def _costs(config: Any, rows: list[Recipe]) -> list[Any]:
    asked = [recipe for recipe in rows if has_costs(recipe)]
    if not asked:
        raise LocalLearnError(f"{title_of(config.table)} prints no costs in these rows: train them by --budget small.")
    with progress() as watch:
        return cost_rows(asked, watch)


def _accuracies(config: Any, rows: list[Recipe]) -> list[Any]:
    seeds = list(range(config.seeds[0])) if len(config.seeds) == 1 else config.seeds
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise LocalLearnError("--seeds takes how many seeds there are, at least 1, or different seeds, such as 0 1 2.")
    if config.lr is not None and config.budget != "small":
        raise LocalLearnError("--lr goes with --budget small; other budgets have the recipe's learning rate.")

    @contextmanager
    def watching(name: str, settings: TrainSettings) -> Iterator[Watcher]:
        with ConsoleWatcher(name, settings.epochs, batch=settings.batch).shown(lambda: "the same command") as watcher:
            yield watcher

    runs = Runs(config.out, config.runs, watching=watching, say=say)
    common = {"data_dir": config.data_dir, "device": config.device, "threads": config.threads}
    reproduction = Reproduction(runs, budget=config.budget, seeds=seeds, common=common, lr=config.lr)
    found, begun = [], time.monotonic()
    for done, recipe in enumerate(rows):
        say(f"row {done + 1} of {len(rows)}: {recipe.row}{_to_go(reproduction, rows[done:])}")
        found.append(reproduction.row(recipe))
    say(f"{len(rows)} rows in {(time.monotonic() - begun) / 60:.1f} minutes")
    return found


def _to_go(reproduction: Reproduction, rows: list[Recipe]) -> str:
    """How many runs are left, and how long they take if each takes as long as those before."""
    seconds, planned = reproduction.runs.mean_seconds, reproduction.planned(rows)
    return f"; at most {planned} runs to go" + (f", {planned * seconds / 60:.0f} minutes" if seconds else "")


def _command(config: Any) -> str:
    """The command that repeats the table."""
    words = ["locallearn", "reproduce", config.table]
    words += ["--budget", config.budget, "--seeds", *map(str, config.seeds)] if config.budget else []
    return shlex.join(words)

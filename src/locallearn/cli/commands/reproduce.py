"""`locallearn reproduce`: a table of the papers, published and here."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from datetime import timedelta
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.cli.console import progress, say, show, show_json
from locallearn.cli.parser import Parser
from locallearn.cli.seeds import add_jobs, add_seeds, seeds_of
from locallearn.cli.typed_command import typed_options
from locallearn.cli.workers import workers_of
from locallearn.recipes import Recipe, rows_of
from locallearn.recipes.accuracies import AccuracyRow, Reproduction
from locallearn.recipes.catalogue import matching_rows
from locallearn.recipes.columns import accuracy_columns, bp_accuracies, cost_columns, title_of
from locallearn.recipes.costs import CostRow, cost_rows, has_costs
from locallearn.recipes.results import make_folders, save, source
from locallearn.recipes.runs import Runs
from locallearn.recipes.training_budget import Budget, unfit

HELP = """Reproduce a table of the papers, beside its published numbers.

examples:
  locallearn reproduce hpff/table3                           # costs: predicted memory and multiply-accumulates
  locallearn reproduce auglocal/table4 --rows resnet110      # some of its rows
  locallearn reproduce hpff/table4a --budget small --seeds 3 --save docs/results
  locallearn reproduce hpff/table4a --budget small --seeds 3 --jobs 2    # two runs at a time
  locallearn reproduce hpff/table4a --budget smoke           # seconds: does it run?
  locallearn list recipes                                    # all tables and rows

Without --budget the costs are counted on fake tensors: no GPU, no data, no training. With one, accuracies are trained:
full, with the papers' epochs; small, 10,000 images and 15 epochs; smoke, seconds. Finished runs under --out are used
again, whichever table they were for, and stopped ones go on; so are those in --runs. The same command may run several
times at once: each trains what no other does.
"""

_OF_TRAINING = {"--seeds", "--lr", "--out", "--runs", "--data-dir", "--device", "--threads", "--jobs"}
"""Options without an effect where costs are counted."""


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(description=HELP, usage="locallearn reproduce TABLE [options]")
    parser.add_argument("table", type=str, help="a table, such as hpff/table3")
    parser.add_argument(
        "--rows", nargs="+", type=str, default=["*"], help="rows, or parts of their names; * stands for anything"
    )
    parser.add_argument("--budget", type=Budget | None, help="how much is trained; by default only costs are counted")
    add_seeds(parser, first="0")
    parser.add_argument("--lr", type=float | None, help="the small budget's learning rate; by default chosen")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="folder of the run folders")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="other folders with runs to be used again")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--device", type=str, default="auto", help="as for train")
    parser.add_argument("--threads", type=int | None, help="as for train")
    add_jobs(parser)
    parser.add_argument("--save", type=Path | None, help="write the table and a page of all tables into this folder")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


def run(config: Any) -> None:
    """Reproduce the table, print and save it."""
    rows = matching_rows(rows_of(config.table), config.rows)
    table, what = rows[0].table, config.budget or "cost"
    _refuse_options(config, rows)
    seeds = seeds_of([str(rows[0].trials)] if config.seeds is None and config.budget == "full" else config.seeds)
    if config.save is not None:
        make_folders(config.save)
    found, failures = _accuracies(config, rows, seeds) if config.budget else (_costs(rows), [])
    _show(table, what, [asdict(row) for row in found], as_json=config.json)
    if config.save is not None:
        say(f"saved: {save(table, found, config.save, command=_command(table, config), what=what)}")
    if failures:
        raise LocalLearnError(f"{counted(len(failures), 'run')} failed; of the first: {failures[0]}")


def _show(table: str, what: str, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        show_json({"table": table, "what": what, **source(), "rows": rows})
        return
    is_cost = what == "cost"
    columns = cost_columns(rows) if is_cost else accuracy_columns(rows, bp_accuracies([{"rows": rows, "what": what}]))
    show(f"{title_of(table)}, {what}", *columns)
    devices = dict.fromkeys(row["device"] for row in rows if row.get("device"))
    commits = dict.fromkeys(commit for row in rows for commit in row.get("commit", "").split(", ") if commit)
    made = source() | ({"commit": ", ".join(commits)} if commits else {})  # runs that are used again have their own
    say(", ".join([*(f"{name} {value}" for name, value in made.items() if value), *devices]))


def _refuse_options(config: Any, rows: list[Recipe]) -> None:
    """Refuse options that do not go together, and rows without a number to count."""
    if config.budget is None:
        for name in sorted(typed_options() & _OF_TRAINING):
            raise LocalLearnError(f"{name} goes with --budget: without one nothing is trained.")
        if not any(map(has_costs, rows)):
            budgets = (budget for budget in ("small", "full") if not all(unfit(recipe, budget) for recipe in rows))
            fit = next(budgets, None)
            train = f": train them by --budget {fit}"
            why = f", and reproduce does not train them: {unfit(rows[0], 'full')}"
            raise LocalLearnError(f"{title_of(config.table)} prints no costs in these rows{train if fit else why}.")
    if config.lr is not None and config.budget != "small":
        raise LocalLearnError("--lr goes with --budget small; other budgets have the recipe's learning rate.")
    if config.lr is not None and not 0 < config.lr < inf:
        raise LocalLearnError(f"--lr {config.lr:g} must be a finite number above 0.")
    for folder in config.runs:
        if not folder.is_dir():
            raise LocalLearnError(f"--runs {folder} is no folder: give folders of runs that are there.")


def _costs(rows: list[Recipe]) -> list[CostRow]:
    with progress() as watch:
        return cost_rows([recipe for recipe in rows if has_costs(recipe)], watch)


def _accuracies(config: Any, rows: list[Recipe], seeds: list[int]) -> tuple[list[AccuracyRow], list[str]]:
    """The rows, and the errors for which some lack runs."""
    common = {"data_dir": config.data_dir, "device": config.device, "threads": config.threads}
    begun, left = time.monotonic(), list(rows)
    with workers_of(config.jobs) as workers:
        runs = Runs(config.out, config.runs, workers=workers)
        reproduction = Reproduction(runs, budget=config.budget, seeds=seeds, common=common, lr=config.lr)
        say(f"{counted(len(rows), 'row')}; at most {counted(reproduction.planned(rows), 'run')}")

        def told(row: AccuracyRow) -> None:
            left[:] = [recipe for recipe in left if recipe.name != row.recipe]
            done = f"row {len(rows) - len(left)} of {len(rows)} is done: {row.recipe.rpartition('/')[2]}"
            say(done + _to_go(reproduction, left))

        found = reproduction.rows(rows, told)
    say(f"{counted(len(rows), 'row')} in {(time.monotonic() - begun) / 60:.1f} minutes")
    return found, reproduction.failures


def _to_go(reproduction: Reproduction, rows: list[Recipe]) -> str:
    """How many runs are left, and how long they take if each takes as long as those before."""
    seconds, planned = reproduction.runs.mean_seconds, reproduction.planned(rows)
    if not planned:
        return ""
    return f"; at most {counted(planned, 'run')} to go" + (
        f", {timedelta(seconds=round(planned * seconds))}" if seconds else ""
    )


def _command(table: str, config: Any) -> str:
    """The command that repeats the rows."""
    options = {"--budget": config.budget, "--seeds": config.seeds, "--lr": config.lr} if config.budget else {}
    options["--rows"] = [] if config.rows == ["*"] else config.rows
    given = ([name, *(value if isinstance(value, list) else [str(value)])] for name, value in options.items() if value)
    return shlex.join(["locallearn", "reproduce", table, *chain.from_iterable(given)])

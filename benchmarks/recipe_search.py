"""Search for a recipe by successive halving, under fixed limits of memory and time.

    python benchmarks/recipe_search.py narrow --costs                    # predicted memory and time of all candidates
    python benchmarks/recipe_search.py narrow --out runs/search --data_dir data --jobs 2

Finished runs in --out are used again and interrupted ones go on, so the same command goes on with a stopped search.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from _candidates import COMMON, SEARCHES, VALIDATION, WITH_COST, Candidates, Limits, step_of
from locallearn._torch.device import device_name
from locallearn._utils.atomic_files import write_json
from locallearn.cli.workers import workers_of
from locallearn.recipes.results import source
from locallearn.recipes.runs import Finished, Runs
from locallearn.training import Interrupted, TrainSettings, plain_settings, rule_text


def results_of(search: str) -> Path:
    """The file with the results of a search."""
    return Path(__file__).parent / "results" / f"recipe-search-{search}.json"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """All candidates that are left are trained for some epochs, with the whole schedule; the best of them go on."""

    epochs: int
    go_on: int

    @classmethod
    def of(cls, text: str) -> Rung:
        """`6:1` is 6 epochs, after which the best one goes on."""
        epochs, go_on = map(int, text.split(":"))
        return cls(epochs=epochs, go_on=go_on)


RUNGS = (Rung(epochs=3, go_on=5), Rung(epochs=6, go_on=1))
SEEDS = (1, 2, 3)
"""Of the confirmation."""


def halving(
    names: Sequence[str],
    rungs: Sequence[Rung],
    accuracies: Callable[[Sequence[str], Rung], Sequence[float | None]],
) -> str:
    """The name that is left after all rungs.

    Args:
        names: of the candidates; of equally good ones the earlier wins.
        rungs: in order.
        accuracies: trains some candidates on a rung; None where a loss became infinite.
    """
    left = list(names)
    for rung in rungs:
        found = [-1.0 if accuracy is None else accuracy for accuracy in accuracies(left, rung)]
        ranked = sorted(zip(found, left, strict=True), key=lambda pair: pair[0], reverse=True)
        left = [name for _, name in ranked[: rung.go_on]]
    return left[0]


class Search:
    """Trains what the search asks for, and writes what is known after each run.

    Args:
        candidates: settings other than the common ones, by name.
        runs: where runs are and go.
        common: settings of all runs.
        target: file of what is known so far.
        known: what is known before anything is trained.
    """

    def __init__(
        self, candidates: Candidates, runs: Runs, common: TrainSettings, target: Path, known: dict[str, Any]
    ) -> None:
        self.candidates, self.runs, self.common, self.target = candidates, runs, common, target
        self.results: dict[str, Any] = {**known, "trials": [], "winner": None, "confirmation": []}
        self._lock = Lock()

    def run(self, rungs: Sequence[Rung]) -> None:
        self.write(rungs=[asdict(rung) for rung in rungs])
        within = [name for name, found in self.results["candidates"].items() if found["is_within"]]
        winner = halving(within, rungs, self.accuracies)
        self.write(winner=winner)
        settings = replace(self.common, **self.candidates[winner])
        self.runs.workers.map(self.confirm, [replace(settings, seed=seed) for seed in SEEDS])

    def accuracies(self, names: Sequence[str], rung: Rung) -> list[float | None]:
        return self.runs.workers.map(partial(self.trial, rung.epochs), names)

    def trial(self, epochs: int, name: str) -> float | None:
        """Accuracy of a candidate on the validation images after the last epoch."""
        found = self.runs.run(replace(self.common, **self.candidates[name], epochs=epochs, data=VALIDATION))
        accuracy = None if found is None else found.result["test_accuracy"]
        self.write(found, trials={"candidate": name, "epochs": epochs, "validation_accuracy": accuracy})
        return accuracy

    def confirm(self, settings: TrainSettings) -> None:
        """Test accuracy after the last epoch, trained on all images of the small budget."""
        found = self.runs.run(settings)
        accuracy = None if found is None else found.result["test_accuracy"]
        self.write(found, confirmation={"seed": settings.seed, "test_accuracy": accuracy})

    def write(self, run: Finished | None = None, **news: Any) -> None:
        with self._lock:
            for name, value in news.items():
                old = self.results.get(name)
                self.results[name] = [*old, value] if isinstance(old, list) else value
            if run is not None:
                self.results["environment"] = {name: run.environment[name] for name in ("versions", "python", "device")}
            write_json(self.target, self.results)


def counted(candidates: Candidates) -> dict[str, Any]:
    """The candidates, their settings and predicted costs, and which are within the limits."""
    limits, bp = Limits(), step_of(replace(COMMON, step="together"))
    common = plain_settings(COMMON)
    found = {}
    for name, changes in candidates.items():
        settings = replace(COMMON, **changes)
        plain = plain_settings(settings)
        step = step_of(replace(COMMON, **{key: changes[key] for key in WITH_COST if key in changes}))
        found[name] = {
            "rule": rule_text(settings.rule),
            "settings": {key: plain[key] for key in plain if plain[key] != common[key]},
            "times_bp": step.times(bp),
            "is_within": step.is_within(limits, bp),
        }
        print(name, found[name]["rule"], found[name]["times_bp"], found[name]["is_within"], flush=True)
    fixed = {"machine": device_name(torch.device("cpu")), "limits": asdict(limits), "seeds": SEEDS}
    return {**source(), **fixed, "bp": asdict(bp), "common": common, "candidates": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", choices=SEARCHES, help="which candidates")
    parser.add_argument("--costs", action="store_true", help="only count costs")
    parser.add_argument("--out", type=Path, default=Path("runs/search"), help="folder of the run folders")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="other folders with runs to be used again")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--rungs", nargs="+", type=Rung.of, default=RUNGS, help="EPOCHS:GO_ON of each rung")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument("--save", type=Path, help="file of the results, once all are there")
    arguments = parser.parse_args()
    candidates = SEARCHES[arguments.search]
    known = counted(candidates)
    if arguments.costs:
        return
    progress = arguments.out / f"search-{arguments.search}.json"
    with workers_of(arguments.jobs) as workers:
        runs = Runs(arguments.out, arguments.runs, workers=workers)
        search = Search(candidates, runs, replace(COMMON, data_dir=arguments.data_dir), progress, known)
        try:
            search.run(arguments.rungs)
        except Interrupted:
            sys.exit(f"stopped; the same command goes on, and {progress} has what is known")
    write_json(arguments.save or results_of(arguments.search), search.results)


if __name__ == "__main__":
    main()

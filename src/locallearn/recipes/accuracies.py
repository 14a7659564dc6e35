"""The accuracies of the papers' tables, trained here at some budget."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from locallearn._utils.errors import LocalLearnError
from locallearn.recipes.recipe import Quantity, Recipe
from locallearn.recipes.runs import Finished, Runs
from locallearn.recipes.training_budget import RATES, Budget, at_budget, unfit
from locallearn.training import TrainSettings, evaluate_run, rule_text
from locallearn.training.files.lock import InUseError


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A published number and those measured here, in the quantity's unit.

    Attributes:
        quantity: its words.
        published, deviation: as printed.
        values: of each seed, after the last epoch.
        best: of each seed, the best of all epochs on the test images; empty where it is not known.
    """

    quantity: str
    published: float
    deviation: float | None
    values: tuple[float, ...]
    best: tuple[float, ...] = ()

    @property
    def mean(self) -> float | None:
        """Mean of the values, or None where there are none."""
        return statistics.fmean(self.values) if self.values else None


@dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """A row of a table.

    Attributes:
        recipe: its name.
        data, model, rule, modules: what was trained.
        lr: the base learning rate.
        validated: accuracy on the validation images with the first seed, from 0 to 1, at each learning rate that was
            tried; empty where no rate was chosen.
        seeds: of the finished runs.
        measured: its numbers.
        device: where the runs were trained.
        commit: of the code that began them, where it is known.
        not_run: why there are no runs, or not those of all seeds; else "".
    """

    recipe: str
    data: str
    model: str
    rule: str
    modules: str
    lr: float
    validated: Mapping[str, float] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    measured: tuple[Measured, ...]
    device: str = ""
    commit: str = ""
    not_run: str = ""


class Reproduction:
    """Trains the rows of a table.

    Args:
        runs: where runs are and go.
        budget: how much is trained.
        seeds: of the runs of each row.
        common: settings of all runs that change no result, such as `data_dir`.
        lr: the small budget's learning rate; by default each row has the one of `RATES` with the better validation
            accuracy with the first seed.

    Attributes:
        failures: errors for which rows lack runs.
    """

    def __init__(
        self, runs: Runs, *, budget: Budget, seeds: Sequence[int], common: dict[str, Any], lr: float | None = None
    ) -> None:
        self.runs, self.seeds, self.common, self.lr = runs, tuple(seeds), common, lr
        self.budget: Budget = budget
        self.failures: list[str] = []

    def rows(
        self, recipes: Sequence[Recipe], told: Callable[[AccuracyRow], None] = lambda _: None
    ) -> list[AccuracyRow]:
        """Train what some rows lack, side by side where the workers do so.

        Args:
            recipes: of the rows.
            told: called with each row once it is there.
        """

        def one(recipe: Recipe) -> AccuracyRow:
            try:
                row = self.row(recipe)
            except BaseException:
                self.runs.workers.stop()
                raise
            told(row)
            return row

        return self.runs.workers.map(one, recipes)

    def row(self, recipe: Recipe) -> AccuracyRow:
        """Train what a row lacks."""
        if why := unfit(recipe, self.budget):
            return _row(recipe, recipe.settings, [], why)
        settings = replace(at_budget(recipe.settings, self.budget), **self.common)
        try:
            settings, validated = self._with_rate(settings)
        except LocalLearnError as error:
            return _row(recipe, settings, [], self._reason(error))
        found = self.runs.workers.map(self._run, [replace(settings, seed=seed) for seed in self.seeds])
        finished = [run for run in found if isinstance(run, Finished)]
        missing = {seed: reason for seed, reason in zip(self.seeds, found, strict=True) if isinstance(reason, str)}
        reasons = [f"seed {seed}: {reason}" for seed, reason in missing.items()] if finished else {*missing.values()}
        tested = None
        if recipe.test_data is not None and settings.data == recipe.settings.data:  # not at the budget smoke
            try:
                tested = [self.runs.workers.call(tested_on, run, recipe.test_data) for run in finished]
            except LocalLearnError as error:
                return _row(recipe, settings, [], self._reason(error))
        return replace(_row(recipe, settings, finished, "; ".join(reasons), tested), validated=validated)

    def _run(self, settings: TrainSettings) -> Finished | str:
        """A finished run, or why there is none."""
        try:
            return self.runs.run(settings) or "its loss became infinite"
        except LocalLearnError as error:
            return self._reason(error)

    def _reason(self, error: LocalLearnError) -> str:
        """Why there is no run, and whether that is a failure."""
        if isinstance(error, InUseError):
            return f"another process trains it ({error})"
        self.failures.append(str(error))
        return str(error)

    def planned(self, recipes: Sequence[Recipe]) -> int:
        """How many runs there are, if none is shared."""
        rates = len(RATES) - 1 if self.budget == "small" and self.lr is None else 0
        return sum(len(self.seeds) + rates for recipe in recipes if not unfit(recipe, self.budget))

    def _with_rate(self, settings: TrainSettings) -> tuple[TrainSettings, dict[str, float]]:
        """The settings with the learning rate of the budget, and the validation accuracies that chose it."""
        if self.budget != "small":
            return settings, {}
        if self.lr is not None:
            return _at_rate(settings, self.lr), {}
        trials = [replace(_at_rate(settings, rate), seed=self.seeds[0]) for rate in RATES]
        finished = [run for run in self.runs.workers.map(self.runs.run, trials) if run is not None]
        if not finished:
            return trials[0], {}
        if len(finished) == 1:
            return _at_rate(settings, finished[0].settings.optimizer.lr), {}
        validated = {run.settings.optimizer.lr: self.runs.validated(run) for run in finished}
        best = max(validated, key=validated.__getitem__)
        return _at_rate(settings, best), {f"{lr:g}": accuracy for lr, accuracy in validated.items()}


def _at_rate(settings: TrainSettings, lr: float) -> TrainSettings:
    return replace(settings, optimizer=replace(settings.optimizer, lr=lr))


def tested_on(run: Finished, data: str) -> float:
    """Accuracy of a run's last epoch on the test images of another data set."""
    return evaluate_run(run.folder, run.settings, data=data).accuracy


def _row(
    recipe: Recipe,
    settings: TrainSettings,
    runs: Sequence[Finished],
    not_run: str,
    tested: Sequence[float] | None = None,
) -> AccuracyRow:
    """A row of some runs; `tested` has their accuracies where these are not of the run's own test images."""
    measured = []
    for one in recipe.published:
        if one.quantity.is_cost:
            continue
        accuracies = _accuracies(one.quantity, runs) if tested is None else tested
        values = tuple(_in_unit(one.quantity, accuracy) for accuracy in accuracies)
        best = ()
        if recipe.kind == "train" and one.quantity not in (Quantity.TOP5_ERROR, Quantity.TOP5_ACCURACY):
            best = tuple(_in_unit(one.quantity, run.result["best_accuracy"]) for run in runs)
        printed = {"published": one.value, "deviation": one.deviation}
        measured.append(Measured(quantity=one.quantity.title, values=values, best=best, **printed))
    return AccuracyRow(
        recipe=recipe.name,
        data=settings.data,
        model=settings.model,
        rule=rule_text(settings.rule),
        modules=str(settings.modules),
        lr=settings.optimizer.lr,
        seeds=tuple(run.settings.seed for run in runs),
        measured=tuple(measured),
        device=_each("device", runs),
        commit=_each("commit", runs),
        not_run=not_run,
    )


def _each(name: str, runs: Sequence[Finished]) -> str:
    """What the environments of some runs say, once each."""
    return ", ".join(dict.fromkeys(str(run.environment[name]) for run in runs if run.environment.get(name)))


def _accuracies(quantity: Quantity, runs: Sequence[Finished]) -> list[float]:
    """Of the runs that have it: with few classes there is no top-5 accuracy, as on the images of a smoke test."""
    top5 = quantity in (Quantity.TOP5_ERROR, Quantity.TOP5_ACCURACY)
    name = "test_top5_accuracy" if top5 else "test_accuracy"
    return [run.result[name] for run in runs if name in run.result]


def _in_unit(quantity: Quantity, accuracy: float) -> float:
    """An accuracy from 0 to 1 as the quantity counts it."""
    return 100 * (1 - accuracy if quantity.title.endswith("error") else accuracy)

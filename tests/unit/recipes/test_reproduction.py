"""Reproductions of tables: costs and accuracies beside the published numbers, from runs that are used again."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from command_line import run
from small_runs import assert_equal_runs, settings, stripes

import locallearn as ll
from locallearn import LocalLearnError, NonFiniteLossError
from locallearn._utils.atomic_files import write_json
from locallearn.recipes import accuracies, costs, find, recipes, rows_of, training_budget
from locallearn.recipes.accuracies import Reproduction
from locallearn.recipes.costs import StepCost, cost_rows, has_costs
from locallearn.recipes.page import page
from locallearn.recipes.results import save
from locallearn.recipes.runs import Runs, validation_accuracy
from locallearn.recipes.training_budget import RATES, at_budget, unfit, validation_split
from locallearn.recipes.workers import Alone, SideBySide
from locallearn.training import Interrupted, RunFolder, Watcher, as_yaml, train
from locallearn.training.files.lock import InUseError

PLAIN = "hpff/table4a/cifar10-resnet32-il"


@contextmanager
def unwatched(name, settings):
    yield Watcher()


class Answering(Alone):
    """Writes finished runs of some accuracy, in no time."""

    def __init__(self, accuracy_of, trained: list) -> None:
        super().__init__(unwatched)
        self.accuracy_of, self.trained = accuracy_of, trained

    def train(self, name, settings, folder, resume) -> float:
        self.trained.append(settings)
        if (accuracy := self.accuracy_of(settings)) is None:
            raise NonFiniteLossError("the loss is infinite", objective=0, module=0, step=1)
        folder.mkdir(parents=True)
        run = RunFolder(folder)
        run.settings.write_text(as_yaml(settings))
        write_json(run.environment, {"device": "cpu"})
        write_json(run.result, {"test_accuracy": accuracy, "best_accuracy": accuracy + 0.01})
        return 1.0


@pytest.fixture
def reproduction(tmp_path, monkeypatch):
    """Makes a reproduction whose runs are not trained but have accuracies."""
    trained: list = []

    def make(accuracy_of, *, budget="small", seeds=(0, 1, 2), lr=None, others=()):
        monkeypatch.setattr(Runs, "validated", lambda self, run: run.result["test_accuracy"])
        found = Runs(tmp_path / "out", others, workers=Answering(accuracy_of, trained))
        return Reproduction(found, budget=budget, seeds=seeds, common={}, lr=lr)

    make.trained = trained  # pyright: ignore[reportFunctionMemberAccess]
    return make


def test_the_better_rate_of_the_first_seed_is_taken_for_all(reproduction):
    row = reproduction(lambda s: s.optimizer.lr + s.seed / 100).row(find(PLAIN))
    assert [(s.optimizer.lr, s.seed) for s in reproduction.trained] == [(0.05, 0), (0.2, 0), (0.2, 1), (0.2, 2)]
    assert (row.lr, row.seeds) == (0.2, (0, 1, 2))
    assert row.validated == {"0.05": 0.05, "0.2": 0.2}
    assert row.measured[0].published == 14.08
    assert row.measured[0].values == pytest.approx((80.0, 79.0, 78.0))
    assert row.measured[0].best == pytest.approx((79.0, 78.0, 77.0))


def test_runs_are_used_again_in_other_tables_and_from_other_folders(reproduction, tmp_path):
    reproduction(lambda s: 0.5, seeds=(0,)).row(find(PLAIN))
    assert len(reproduction.trained) == 2
    again = reproduction(lambda s: 0.5, seeds=(0,))
    assert again.row(find("man/table4a/cifar10-resnet32-none")).measured[0].values == (50.0,)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    reproduction(lambda s: 0.5, seeds=(0,), others=[tmp_path / "elsewhere"]).row(find(PLAIN))
    assert len(reproduction.trained) == 2


def test_a_run_whose_settings_changed_on_the_way_is_not_used_again(reproduction, tmp_path):
    row = {"seeds": (0,), "lr": 0.1}
    reproduction(lambda s: 0.5, **row).row(find(PLAIN))
    (folder,) = (RunFolder(path) for path in (tmp_path / "out").iterdir())
    folder.add_history({"epoch": 2, "step": 0, "changes": {"schedule": {}}})
    assert "holds a run whose schedule changed on the way" in reproduction(None, **row).row(find(PLAIN)).not_run
    folder.path.rename(tmp_path / "elsewhere")
    reproduction(lambda s: 0.5, others=[tmp_path], **row).row(find(PLAIN))
    assert len(reproduction.trained) == 2


def test_a_rate_whose_loss_becomes_infinite_is_not_taken(reproduction):
    assert reproduction(lambda s: None if s.optimizer.lr == 0.2 else 0.5, seeds=(0,)).row(find(PLAIN)).lr == 0.05
    row = reproduction(lambda s: None, seeds=(0,)).row(find("man/table4a/cifar10-resnet32-ema"))
    assert row.not_run == "its loss became infinite"
    assert row.measured[0].values == ()


def test_a_run_of_another_process_is_left_to_it(reproduction):
    def busy(_):
        raise InUseError("runs/one is in use.")

    asked = reproduction(busy)
    assert asked.row(find(PLAIN)).not_run == "another process trains it (runs/one is in use.)"


def test_a_run_that_another_process_begins_meanwhile_is_left_to_it(reproduction, monkeypatch):
    def train_late(self, name, settings, folder, resume) -> float:
        if resume == "last":
            raise InUseError("runs/one is in use.")
        folder.mkdir(parents=True)
        RunFolder(folder).settings.write_text(as_yaml(settings))
        raise LocalLearnError(f"{folder} holds a run already: go on with it by --resume {folder}.")

    monkeypatch.setattr(Answering, "train", train_late)
    assert reproduction(None).row(find(PLAIN)).not_run == "another process trains it (runs/one is in use.)"


def test_smoke_has_the_fewest_modules_that_are_not_trained_as_one():
    names = (PLAIN, "auglocal/table1/cifar10-resnet32-auglocal-d4")
    modules = [at_budget(find(name).settings, "smoke").modules for name in names]
    assert modules == [3, "all"]
    assert at_budget(find("mlaan/table4/cifar10-resnet32-mlm-lam").settings, "smoke").modules == 4


def test_a_row_of_an_evaluation_has_the_accuracy_on_other_images(reproduction, monkeypatch):
    monkeypatch.setattr(accuracies, "tested_on", lambda run, data: {"stl10": 0.25}[data])
    row = reproduction(lambda s: 0.5, seeds=(0,), lr=0.1).row(find("mlaan/table6/cifar10-resnet32-dgl"))
    assert [(one.published, one.values, one.best) for one in row.measured] == [(31.95, (25.0,), ())]


def test_a_given_rate_is_kept_and_rows_that_do_not_fit_say_why(reproduction):
    assert reproduction(lambda s: 0.5, seeds=(4,), lr=0.1).row(find(PLAIN)).lr == 0.1
    assert [s.seed for s in reproduction.trained] == [4]
    assert "small images" in unfit(find("hpff/table2/imagenet-vgg13-dgl"), "small")
    assert "locallearn detect" in unfit(find("auglocal/table12/imagenet-resnet34-bp"), "full")
    assert "costs alone" in unfit(find("hpff/table3/cifar10-resnet32-bp"), "full")


def test_the_small_budget_is_that_of_the_page_of_results():
    official = find("hpff/table1/cifar10-resnet32-hpff-dgl").settings
    small = at_budget(official, "small")
    assert (small.modules, small.epochs, small.batch, small.train_images) == ("all", 15, 128, 10_000)
    assert small.precision == "bf16"
    assert small.rule == official.rule
    assert at_budget(find("hpff/table1/cifar10-resnet110-k32-dgl").settings, "small").modules == "hpff-32"
    assert at_budget(official, "full") is official
    assert RATES == (0.05, 0.2)


def test_validation_images_are_the_last_of_the_training_split(tmp_path, monkeypatch):
    asked = replace(settings(rule=ll.BP()), epochs=1, data_dir=tmp_path, loggers=())
    train(asked, tmp_path / "run")
    for counts, count in ((training_budget.VALIDATION_IMAGES, 30), (training_budget.TRAIN_IMAGES, 70)):
        monkeypatch.setitem(counts, asked.data, count)  # pyright: ignore[reportArgumentType]
    finished = Runs(tmp_path, [], workers=Alone(unwatched)).run(asked)
    assert finished is not None
    accuracy = validation_accuracy(finished)
    assert round(30 * accuracy, 4) == int(round(30 * accuracy, 4))
    images = stripes(tmp_path)
    assert len(images.train) == 100
    assert np.array_equal(validation_split(asked.data, images).images, images.train.images[-30:])
    with pytest.raises(LocalLearnError, match="has 99 training images here, and the small budget needs 100"):
        validation_split(asked.data, images.limited(99))


def counted(asked, **_) -> StepCost:
    size = 2**30 * (4 if isinstance(asked.rule, ll.BP) else 3)
    return StepCost(peak_bytes=size, macs=10**9)


def test_costs_are_counted_once_and_compared_with_bps(monkeypatch):
    told, steps = [], []
    monkeypatch.setattr(costs, "step_cost", lambda asked, **_: steps.append(asked) or counted(asked))
    monkeypatch.setattr(costs, "plain_bp_bytes", lambda asked: 6 * 2**30)
    rows = cost_rows(rows_of("hpff/table5")[:3], lambda *words: told.append(words))
    assert len(told) == len(steps) == 4
    assert [row.published_gb for row in rows] == [2.67, 3.13, 2.31]
    assert [(row.ratio, row.plain_ratio) for row in rows] == [(0.75, 0.5)] * 3
    assert rows[0].published_ratio == pytest.approx(2.67 / 3.37)  # BP is in Table 3
    assert [has_costs(recipe) for recipe in rows_of("auglocal/table6")] == [True] * 4
    assert not has_costs(find(PLAIN))


def test_only_printed_kinds_of_cost_are_counted(monkeypatch):
    asked = []
    monkeypatch.setattr(costs, "step_cost", lambda settings, **kinds: asked.append(kinds) or counted(settings))
    cost_rows(rows_of("auglocal/table11")[:2], lambda *_: None)
    assert asked == [{"memory": False, "macs": True}] * 2


def test_plain_bp_stores_two_maps_for_each_convolution():
    asked = replace(find("hpff/table1/cifar10-resnet32-bp").settings, model="resnet20", batch=64)
    stages = ((7, 16, 32), (6, 32, 16), (6, 64, 8))  # convolutions, channels and side; the stem is in the first
    maps = sum(2 * count * channels * side**2 for count, channels, side in stages)
    assert costs.plain_bp_bytes(asked) == pytest.approx(4 * 64 * maps, rel=0.1)


def test_results_are_merged_and_shown_on_one_page(reproduction, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "step_cost", counted)
    monkeypatch.setattr(costs, "plain_bp_bytes", lambda asked: 6 * 2**30)
    (tmp_path / "digits.md").write_text("# Every system on digits\n")
    for rows in (rows_of("hpff/table5")[:3], rows_of("hpff/table5")[3:]):
        file = save("hpff/table5", cost_rows(rows, lambda *_: None), tmp_path, command="again", what="cost")
    assert len(json.loads(file.read_text())["rows"]) == 6
    file.with_suffix(".md").write_text("Why it is so.\n")
    repeat = reproduction(lambda s: 0.6 + 0.1 * isinstance(s.rule, ll.BP), seeds=(0, 1))
    for table, name in (("hpff/table4a", PLAIN), ("hpff/table1", "hpff/table1/cifar10-resnet32-bp")):
        save(table, [repeat.row(find(name))], tmp_path, command="again", what="small")
    text = page(tmp_path)
    assert text == (tmp_path / "README.md").read_text()
    assert "[Every system on digits](digits.md)" in text
    assert "| `cifar10-resnet32-infopro` | 1024 | 2.67 | 0.79 | 3.00 | 0.75 | 0.50 |" in text
    assert "Why it is so." in text
    assert "![HPFF, Table 5, cost: published and here](figures/hpff-table5-cost.svg)" in text
    assert (tmp_path / "figures/hpff-table5-cost.svg").read_text().count("cifar10-resnet") == 6
    assert not (tmp_path / "figures/hpff-table4a-small.svg").exists(), "a single row is no picture"
    errors = "| 14.08 | 7.71 | 40.00 ± 0.00 | 10.00 | 25.92 | 39.00 | 0, 1 | 0.05 |"
    assert f"| `cifar10-resnet32-il` | test error, % {errors}" in text
    others = ", ".join(f"`{recipe.name.partition('4a/')[2]}`" for recipe in rows_of("hpff/table4a")[1:])
    assert f"<details><summary>3 of 4 rows were not run</summary>\n\n{others}\n\n</details>" in text
    (tables_not_run,) = (line for line in text.splitlines() if line.startswith("**No row of their own**"))
    assert "MLAAN, Table 4" in tables_not_run
    assert "HPFF, Table 4a" not in tables_not_run
    assert "* MLAAN, Table 5 (2 rows): it compares 300 epochs with 400" in text


def test_a_row_that_lost_runs_does_not_replace_one_that_has_them(reproduction, tmp_path):
    def saved() -> dict:
        (row,) = json.loads((tmp_path / "tables/hpff-table4a-small.json").read_text())["rows"]
        return row

    whole = reproduction(lambda s: 0.6, seeds=(0, 1)).row(find(PLAIN))
    save("hpff/table4a", [whole], tmp_path, command="first", what="small")
    in_part = replace(whole, seeds=(0,), not_run="seed 1: another process trains it")
    save("hpff/table4a", [in_part], tmp_path, command="second", what="small")
    assert (saved()["seeds"], saved()["origin"]["command"]) == ([0, 1], "first")
    save("hpff/table4a", [replace(whole, seeds=(7,))], tmp_path, command="third", what="small")
    assert (saved()["seeds"], saved()["origin"]["command"]) == ([7], "third")
    assert "`third`, commit" in (tmp_path / "README.md").read_text()


def test_runs_without_a_commit_are_told_by_the_version(reproduction, tmp_path):
    row = reproduction(lambda s: 0.6, seeds=(0,)).row(find(PLAIN))
    save("hpff/table4a", [row], tmp_path, command="now", what="small")
    written = (tmp_path / "README.md").read_text()
    assert "`now`, commit of locallearn" in written
    assert (
        "Validation accuracy with the first seed, in percent: `cifar10-resnet32-il` 60.0 (lr 0.05) and 60.0 (lr 0.2)."
        in written
    )


def test_rows_are_told_once_they_are_there_and_one_that_fails_leaves_the_others(reproduction):
    told = []
    rows = reproduction(lambda s: 0.5, seeds=(0,)).rows(rows_of("hpff/table4a"), told.append)
    assert [row.recipe for row in rows] == [row.recipe for row in told] == [r.name for r in rows_of("hpff/table4a")]

    def damaged_in_part(settings):
        if settings.seed == 6 or settings.rule != ll.DGL():
            raise LocalLearnError("runs/one is damaged.")
        return 0.5

    asked = reproduction(damaged_in_part, seeds=(5, 6))
    plain, *others = asked.rows(rows_of("hpff/table4a"))
    assert (plain.seeds, plain.not_run) == ((5,), "seed 6: runs/one is damaged.")
    assert [(row.seeds, row.not_run) for row in others] == [((), "runs/one is damaged.")] * 3
    assert asked.failures == ["runs/one is damaged."] * 4


def test_an_interrupted_row_stops_the_others(reproduction):
    def interrupted(_):
        raise Interrupted

    asked, stopped = reproduction(interrupted, seeds=(5,)), []
    asked.runs.workers.stop = lambda: stopped.append(True)
    with pytest.raises(Interrupted):
        asked.rows(rows_of("hpff/table4a"))
    assert stopped == [True]


def test_side_by_side_the_error_that_stopped_the_others_is_told():
    def one(number: int) -> int:
        if number == 1:
            raise Interrupted
        if number == 2:
            raise LocalLearnError("the second one is damaged.")
        return number

    workers = SideBySide(2, unwatched)
    assert workers.map(one, [5, 3, 4]) == [5, 3, 4]
    with pytest.raises(LocalLearnError, match="the second one"):
        workers.map(one, [1, 2, 3])


@pytest.mark.slow
def test_runs_side_by_side_stop_with_checkpoints_and_go_on_with_equal_bits(tmp_path):
    asked = [replace(settings(rule=ll.BP(), epochs=30, threads=1), loggers=(), seed=seed) for seed in (0, 1)]
    told, stop = [], []

    class Seen(Watcher):
        def epoch(self, row):
            told.append(row["epoch"])
            stop.append(True)

    @contextmanager
    def watching(name, settings):
        yield Seen()

    def trained(workers):
        return workers.map(Runs(tmp_path / "out", [], workers=workers).run, asked)

    with (
        pytest.raises(Interrupted),
        SideBySide(2, watching, asked_to_stop=lambda: bool(stop)) as workers,
    ):
        trained(workers)
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == 2
    with SideBySide(2, watching) as workers:
        finished = trained(workers)
    assert sorted(run.folder for run in finished) == folders
    assert sorted(told) == sorted([*range(1, 31)] * 2)
    train(asked[1], tmp_path / "alone")
    assert_equal_runs(tmp_path / "alone", finished[1].folder)


def test_a_row_that_differs_in_epochs_alone_is_not_trained_at_the_small_budget():
    why = unfit(find("mlaan/table5/cifar10-resnet32-mlaan-dgl"), "small")
    assert why == "it compares 300 epochs with 400, and the small budget trains all rows alike"
    assert not unfit(find("mlaan/table5/cifar10-resnet32-dgl"), "small")
    assert not unfit(find("mlaan/table5/cifar10-resnet32-mlaan-dgl"), "full")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["hpff/tabel3"], "did you mean 'hpff/table3'?"),
        (["hpff/table1"], "train them by --budget small"),
        (["hpff/table3", "--rows", "vgg"], "no row has 'vgg'"),
        (["hpff/table1", "--budget", "small", "--seeds", "0"], "--seeds 0: give at least 1"),
        (["hpff/table1", "--budget", "full", "--lr", "0.1"], "--lr goes with --budget small"),
        (["hpff/table3", "--jobs", "2"], "--jobs goes with --budget: without one nothing is trained."),
        (["hpff/table1", "--budget", "full", "--jobs", "0"], "--jobs 0 must be at least 1."),
    ],
)
def test_mistakes_are_told(options, sentence, capsys):
    assert run("reproduce", *options) == 1
    assert sentence in capsys.readouterr().err


QUICK = ["hpff/table4a/cifar10-resnet32-cl", "mlaan/table6/cifar10-resnet32-mlaan-dgl"]
CAN = [
    row for row in recipes().values() if row.table and not unfit(row, "smoke") and not re.search("-bp|vgg13", row.name)
]
OTHERS = {row.table: row.name for row in reversed(CAN)}
"""The first row of each table that trains locally."""


@pytest.mark.parametrize("name", QUICK + [pytest.param(name, marks=pytest.mark.slow) for name in OTHERS.values()])
def test_smoke(name, tmp_path, capsys):
    table, _, row = name.rpartition("/")
    options = ["--budget", "smoke", "--out", str(tmp_path / "runs"), "--save", str(tmp_path)]
    assert run("reproduce", table, "--rows", row, *options) == 0
    saved = next((tmp_path / "tables").glob("*-smoke.json")).read_text()
    assert json.loads(saved)["rows"][0]["measured"][0]["values"]
    assert "NaN" not in saved, "digits have no top-5 accuracy"
    for file in (tmp_path / "runs").rglob("environment.json"):
        write_json(file, json.loads(file.read_text()) | {"commit": "0ld1234"})
    capsys.readouterr()
    assert run("reproduce", table, "--rows", row, *options) == 0
    assert "commit 0ld1234" in capsys.readouterr().err, "that of the runs, which are used again"

"""docs/results/recommended.md: a search by successive halving, its winner as a recipe, and the frontier."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from locallearn._utils.atomic_files import read_json
from locallearn.recipes import find
from locallearn.training import plain_settings
from locallearn.training.settings.text import with_new_defaults

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results" / "recommended.md"
NOT_OF_THE_RECIPE = ("train_images", "threads", "loggers")


@pytest.fixture
def scripts(monkeypatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("recipe_search"), importlib.import_module("frontier")


def test_the_recipe_is_the_winner_of_its_search(scripts):
    search = read_json(RESULTS / f"recipe-search-{scripts[1].RECOMMENDED}.json")
    winner = search["common"] | search["candidates"][search["winner"]]["settings"]
    settings = find("recommended").settings
    recipe, winner = plain_settings(settings), with_new_defaults(winner, settings)
    assert {name for name in recipe if recipe[name] != winner[name]} == {*NOT_OF_THE_RECIPE}


def test_the_best_of_each_rung_go_on(scripts):
    search, _ = scripts
    trained = []

    def accuracies(names, rung):
        trained.append((rung.epochs, list(names)))
        return [{"d": None, "c": 0.9, "a": 0.4 if rung.epochs == 1 else 0.95}.get(name, 0.4) for name in names]

    rungs = (search.Rung(epochs=1, go_on=2), search.Rung(epochs=2, go_on=1))
    assert search.halving("abcd", rungs, accuracies) == "a"
    assert trained == [(1, ["a", "b", "c", "d"]), (2, ["c", "a"])]  # of a and b, equally good, the earlier


@pytest.mark.parametrize("file", sorted(RESULTS.glob("recipe-search-*.json")), ids=lambda file: file.stem)
def test_candidates_above_a_limit_are_left_out(file):
    search = read_json(file)
    tried = {trial["candidate"] for trial in search["trials"]}
    limits = search["limits"]
    for name, candidate in search["candidates"].items():
        cost = candidate["times_bp"]
        within = cost["bytes"] <= limits["memory"] and cost["macs"] <= limits["macs"]
        assert (name in tried) == within == candidate["is_within"]
    assert all(f"{100 * trial['validation_accuracy']:.2f} %" in PAGE.read_text() for trial in search["trials"])


def test_the_page_has_the_table_of_the_results(scripts):
    _, frontier = scripts
    assert frontier.table(read_json(frontier.RESULTS)["rows"]) in PAGE.read_text()
    assert frontier.best_so_far([(1, 5), (2, 4), (2, 6), (3, 6)]) == [(1, 5), (2, 6)]

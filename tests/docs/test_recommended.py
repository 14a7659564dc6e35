"""docs/results/recommended.md: a search by successive halving."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def search(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("recipe_search")


def test_the_best_of_each_rung_go_on(search):
    trained = []

    def accuracies(names, rung):
        trained.append((rung.epochs, list(names)))
        return [{"d": None, "c": 0.9, "a": 0.4 if rung.epochs == 1 else 0.95}.get(name, 0.4) for name in names]

    rungs = (search.Rung(epochs=1, go_on=2), search.Rung(epochs=2, go_on=1))
    assert search.halving("abcd", rungs, accuracies) == "a"
    assert trained == [(1, ["a", "b", "c", "d"]), (2, ["c", "a"])]  # of a and b, equally good, the earlier

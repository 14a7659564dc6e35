"""docs/performance.md has the figures of its benchmarks."""

from __future__ import annotations

import importlib
from pathlib import Path

from locallearn._utils.atomic_files import read_json

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_counted_peaks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    counted = read_json(ROOT / "benchmarks" / "results" / "memory.json")
    table = importlib.import_module("memory").table(counted)
    assert len(table.splitlines()) == 2 + len(counted["rows"])
    assert table in (ROOT / "docs" / "performance.md").read_text()

"""The examples run, shrunk, in this process."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_is_short(name, monkeypatch, capsys):
    path = FOLDER / f"{name}.py"
    assert len(path.read_text().splitlines()) < 100
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [str(path), "--epochs", "1", "--images", "16"])
    monkeypatch.delitem(sys.modules, "common", raising=False)
    runpy.run_path(str(path))
    told = capsys.readouterr().out
    assert re.search(r"test accuracy +\d+\.\d%", told)
    if name == "dgl":
        assert "largest difference between the weights: 0.0\n" in told


def test_there_is_an_example_for_each_paper_and_the_page_lists_them():
    assert EXAMPLES == ["auglocal", "dgl", "five_lines", "hpff", "infopro", "man", "mlaan", "predsim"]
    page = (FOLDER / "README.md").read_text()
    assert all(f"[{name}.py]({name}.py)" in page for name in EXAMPLES)

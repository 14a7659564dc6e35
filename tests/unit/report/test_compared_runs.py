"""Run folders compared as tables."""

from __future__ import annotations

import csv

from command_line import result_of, run
from report_runs import made


def test_compare_prints_run_folders_for_papers_and_spreadsheets(capsys):
    folders = [str(made() / name) for name in ("bp", "dgl", "dgl-1")]
    assert run("compare", *folders, "--format", "csv") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["rule"], row["seed"]) for row in rows] == [("bp", "0"), ("dgl(hidden=1)", "0"), ("dgl(hidden=1)", "1")]
    found = result_of(capsys, "compare", *folders)
    assert [float(row["test_accuracy"]) for row in rows[1:]] == found["dgl(hidden=1)"]["test_accuracies"]
    assert run("compare", *folders, "--format", "markdown") == 0
    assert capsys.readouterr().out.splitlines()[3].startswith("| dgl(hidden=1) (seeds 0, 1)")
    assert run("compare", *folders, "--format", "latex") == 0
    assert "\\begin{tabular}{lrrrrrr}" in capsys.readouterr().out
    assert run("compare", *folders, folders[0]) == 1
    assert "is given twice: leave one out." in capsys.readouterr().err

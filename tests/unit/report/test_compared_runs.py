"""Run folders compared as tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import result_of, run
from report_runs import copies, made

from locallearn.cli.tables import show_table
from locallearn.report import Cell, Table


def test_compare_prints_run_folders_for_papers_and_spreadsheets(capsys):
    folders = [str(made() / name) for name in ("bp", "dgl", "dgl-1")]
    assert run("compare", *folders, "--format", "csv") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["rule"], row["seed"]) for row in rows] == [("bp", "0"), ("dgl(hidden=1)", "0"), ("dgl(hidden=1)", "1")]
    found = result_of(capsys, "compare", *folders)
    assert [float(row["test_accuracy"]) for row in rows[1:]] == found["dgl(hidden=1)"]["test_accuracies"]
    behind = [float(row["points_behind_bp"]) for row in rows]
    assert (behind[0], sum(behind[1:]) / 2) == (0, pytest.approx(found["dgl(hidden=1)"]["points_behind_bp"]))
    assert {(row["best_chosen_on"], row["validation_accuracy"]) for row in rows} == {("test", "")}
    assert run("compare", *folders, "--format", "markdown") == 0
    assert capsys.readouterr().out.splitlines()[3].startswith("| dgl(hidden=1) (seeds 0, 1)")
    assert run("compare", *folders, "--format", "latex") == 0
    assert "\\begin{tabular}{lrrrrrr}" in capsys.readouterr().out
    assert run("compare", *folders, folders[0]) == 1
    assert "is given twice: leave one out." in capsys.readouterr().err


def of_batch(path: Path, batch: int) -> Path:
    settings = path / "settings.yaml"
    settings.write_text(settings.read_text().replace("batch: 64", f"batch: {batch}"))
    return path


def test_settings_that_differ_are_told_below_the_table(tmp_path, capsys):
    bp, dgl = copies(tmp_path, "bp", "dgl")
    assert run("compare", str(bp), str(of_batch(dgl, 32))) == 0
    told = ["runs differ in more than rule and seed:", "  bp: batch 64", "  dgl(hidden=1): batch 32"]
    assert capsys.readouterr().err.splitlines() == told
    found = result_of(capsys, "compare", str(bp), str(dgl))
    assert [one["settings_that_differ"] for one in found.values()] == [{"batch": 64}, {"batch": 32}]
    assert found["dgl(hidden=1)"]["points_behind_bp"] is None
    assert run("compare", str(bp), str(dgl), "--format", "csv") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["setting_batch"], row["points_behind_bp"]) for row in rows] == [("64", "0.0"), ("32", "")]
    other = of_batch(copies(tmp_path / "again", "bp")[0], 32)
    assert run("compare", str(bp), str(other), "--format", "csv") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["rule"], row["label"]) for row in rows] == [("bp", "bp, batch 64"), ("bp", "bp, batch 32")]


def test_a_comparison_does_not_replace_one_of_more_runs_nor_go_into_a_run(tmp_path, capsys):
    bp, dgl = map(str, copies(tmp_path, "bp", "dgl"))
    out = tmp_path / "out"
    assert run("compare", bp, dgl, "--out", str(out)) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run("compare", bp, "--out", str(out)) == 1
    sentence = f"compares other runs too, such as {dgl}: give them too, or choose another folder by --out."
    assert sentence in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert run("compare", bp, "--out", dgl) == 1
    assert "holds a run, not run folders" in capsys.readouterr().err
    assert not (Path(dgl) / "figures").exists()
    (out / "compare.json").write_text("[]")
    assert run("compare", bp, dgl, "--out", str(out)) == 1
    assert "compare.json is no comparison: remove it, or choose another folder" in capsys.readouterr().err


def test_a_folder_of_runs_stands_for_these(tmp_path, capsys):
    copies(tmp_path / "mine", "dgl", "dgl-1")
    found = result_of(capsys, "compare", str(made() / "bp"), str(tmp_path / "mine"))
    assert found["dgl(hidden=1)"]["folders"] == [str(tmp_path / "mine" / name) for name in ("dgl", "dgl-1")]
    page = tmp_path / "page.html"
    words = ("report", str(tmp_path / "mine"), "--trust-code", "-o", str(page), "--only", "output-loss")
    assert run(*words) == 0
    assert "2 runs" in capsys.readouterr().err


def test_an_unfinished_run_is_one_in_json_and_csv(tmp_path, capsys):
    (path,) = copies(tmp_path, "dgl")
    metrics = path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    (path / "result.json").unlink()
    (one,) = result_of(capsys, "compare", str(path)).values()
    assert (one["epochs"], one["finished"]) == (1, False)
    assert run("compare", str(path), "--format", "csv") == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (row["epochs"], row["finished"]) == ("1", "False")


def test_seconds_are_those_of_the_median_epoch(tmp_path, capsys):
    (path,) = copies(tmp_path, "dgl")
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows = [{**lines[0], "epoch": epoch, "seconds": s} for epoch, s in ((1, 1.0), (2, 2.0), (3, 30.0))]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (one,) = result_of(capsys, "compare", str(path)).values()
    assert run("compare", str(path), "--format", "csv") == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert one["seconds_per_epoch"] == float(row["seconds_per_epoch"]) == 2.0


def test_compared_run_folders_are_written_under_the_name_that_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = result_of(capsys, "compare", str(made() / "bp"), "--name", "mine")
    assert json.loads((tmp_path / "runs/mine/compare.json").read_text()) == found
    assert run("compare", str(made() / "bp")) == 0
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--epochs", "10"), "leave out --epochs, or give no run folder"),  # the default
        (("--rules", "bp", "checkpoint", "dgl", "auglocal"), "leave out --rules"),
        (("--jobs=1", "--seed", "0"), "leave out --jobs, --seed, or"),
        (
            ("--json", "--format", "csv"),
            "--json and --format csv both say how the result is printed: give one of them.",
        ),
        (("--name", "a", "--out", "b"), "--out and --name both say where the run goes: give one of them."),
    ],
)
def test_options_that_would_have_no_effect_on_run_folders_are_refused(words, sentence, capsys):
    assert run("compare", str(made() / "bp"), *words) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("markdown", r"a\|b\_c \*d \`e \<f \[g] \\h & 5 % $ # { } ~ ^"),
        (
            "latex",
            r"a\textbar{}b\_c *d `e \ensuremath{<}f [g] \textbackslash{}h \& 5 \% \$ \# \{ \} \textasciitilde{} \^{}",
        ),
        ("table", r"a|b_c *d `e <f [g] \h & 5 % $ # { } ~ ^"),
    ],
)
def test_special_characters_of_a_label_stay_text(form, shown, capsys):
    label = r"a|b_c *d `e <f [g] \h & 5 % $ # { } ~ ^"
    show_table("[title]", Table(caption="", columns=("[run]", "n"), rows=((Cell(text=label), Cell(text="1")),)), form)
    out = capsys.readouterr().out
    assert shown in out
    assert form != "table" or ("[title]" in out and "[run]" in out)

"""`locallearn report`."""

from __future__ import annotations

import pytest
from command_line import result_of, run
from report_runs import copies, made


def test_a_page_of_two_runs(tmp_path, capsys):
    out = tmp_path / "page.html"
    folders = [str(made() / name) for name in ("bp", "dgl")]
    words = ("report", *folders, "--trust-code", "-o", str(out), "--only", "accuracy-epoch", "memory")
    found = result_of(capsys, *words)
    assert found == {"report": str(out), "figures": ["accuracy-epoch", "memory"], "bytes": out.stat().st_size}
    assert run(*words) == 0
    assert f"{out}: 2 runs, 2 figures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere holds no run"),
        (["BP", "--only", "memroy"], "did you mean 'memory'?"),
        (["BP", "-o", "none/page.html"], "none is no folder: make it first"),
        (["BP", "BP"], "is given twice: leave one out"),
    ],
)
def test_a_mistake_gets_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    bp = str(made() / "bp")
    assert run("report", *(bp if word == "BP" else word for word in words), "--trust-code") == 1
    assert sentence in capsys.readouterr().err


def test_a_run_without_metrics_is_named(tmp_path, capsys):
    (path,) = copies(tmp_path, "dgl")
    (path / "metrics.jsonl").unlink()
    assert run("report", str(path), "--trust-code", "-o", str(tmp_path / "page.html")) == 1
    assert f"{path} has no metrics yet" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()

"""Files of a run that are damaged, half-written or too long."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from small_runs import settings

from locallearn import LocalLearnError
from locallearn.cli.main import main
from locallearn.training import RunFolder, load_checkpoint, load_run, train

SMALL = ["--model", "small_runs.little", "--data", "small_runs.stripes", "--epochs", "1", "--batch", "32"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "lacks some of the 2 epochs before the checkpoint: put a copy of it back"),
        ('{"epoch": 1, "test_accuracy": 1.0}\n{"epoch": 2, "te', "lacks some of the 2 epochs"),
        ('{"epoch": 1}\n{"epoch": 2}\n', "is damaged: a line has no test_accuracy"),
        ("[" * 100_000 + "\n", "is damaged: each line must be JSON"),
    ],
)
def test_metrics_that_are_not_whole_are_told_where_they_are_used(text, told, copied):
    (copied / "metrics.jsonl").write_text(text)
    with pytest.raises(LocalLearnError, match=rf"metrics.jsonl {told}"):
        load_run(copied, trust_code=True)


def test_metrics_that_never_end_are_told(copied):
    (copied / "metrics.jsonl").unlink()
    os.mkfifo(copied / "metrics.jsonl")
    with pytest.raises(LocalLearnError, match=r"metrics.jsonl is damaged: .*no regular file"):
        load_run(copied, trust_code=True)


def test_a_run_whose_metrics_were_removed_has_no_test_accuracy(copied):
    assert load_run(copied, trust_code=True).how["test_accuracy"] is not None
    (copied / "metrics.jsonl").unlink()
    assert load_run(copied, trust_code=True).how["test_accuracy"] is None


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("result.json", "{}", "result.json is damaged: it has no peak_activation_bytes"),
        ("result.json", "3", "result.json is damaged"),
        ("metrics.jsonl", "", "has no metrics yet"),
    ],
)
def test_a_comparison_tells_damaged_files_of_its_finished_runs(file, text, told, tmp_path, capsys):
    command = ["compare", "--rules", "bp", *SMALL, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    (tmp_path / "out" / "bp" / file).write_text(text)
    capsys.readouterr()
    assert main(command) == 1
    assert told in capsys.readouterr().err.splitlines()[-1]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses larger files (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)  # Python would leave half of a module's, which breaks it
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 700, 3000])  # of the lock, settings and checkpoints
def test_a_file_that_may_not_be_so_large_is_told_and_nothing_is_half_written(size, tmp_path, capsys):
    folder = tmp_path / "run"
    command = ["train", "--rule", "dgl", *SMALL, "--out", str(folder)]
    with largest_file(size):
        code = main(command)
    *_, told = capsys.readouterr().err.splitlines()
    assert code == 1
    assert told.startswith("error: the file is larger than the system allows")
    assert not list(folder.glob("*.new"))
    assert all(load_checkpoint(path) for path in folder.glob("*.pt"))
    if (folder / "settings.yaml").exists():
        command = ["train", "--resume", str(folder), "--trust-code"]
    assert main(command) == 0
    assert (folder / "data.json").exists()
    assert [row["epoch"] for row in RunFolder(folder).rows()] == [1]


def test_a_folder_that_a_process_left_while_it_began_is_free(tmp_path):
    for name in (".lock", "owner.json.new", "environment.json", "settings.yaml.new"):
        (tmp_path / name).touch()
    with RunFolder(tmp_path).opened(settings(), resume=False, device="cpu"):
        assert (tmp_path / "settings.yaml").exists()
    with (
        pytest.raises(LocalLearnError, match="holds a run already"),
        RunFolder(tmp_path).opened(settings(), resume=False, device="cpu"),
    ):
        pass


def test_a_failed_write_of_metrics_leaves_those_of_earlier_epochs(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.begin(1)
    folder.add_epoch({"epoch": 1})
    with largest_file(30), pytest.raises(LocalLearnError, match=r"larger than the system allows.*metrics.jsonl"):
        folder.add_epoch({"epoch": 2, "losses": [0.5] * 10})
    assert folder.metrics.read_text() == json.dumps({"epoch": 1}) + "\n"


def test_a_name_that_is_too_long_is_told(tmp_path, capsys):
    assert main(["train", "--rule", "dgl", *SMALL, "--out", str(tmp_path / ("x" * 300))]) == 1
    assert "File name too long" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LocalLearnError, match=r"cannot be made \(File name too long\)"):
        train(settings(epochs=1), tmp_path / ("x" * 300))
    with pytest.raises(LocalLearnError, match="holds no run: File name too long"):
        load_run(tmp_path / ("x" * 300))

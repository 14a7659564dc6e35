"""Files of settings that are none, or would never end, are refused at once by size and type."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import run

from locallearn._utils.atomic_files import read_yaml
from locallearn._utils.errors import LocalLearnError
from locallearn.training import load_run


def bomb() -> str:
    """A list that holds the one before it nine times, nine times over."""
    pairs = zip("abcdefghi", "bcdefghij", strict=True)
    return "layers: &a [x]\n" + "".join(f"{name}: &{name} [{f'*{before},' * 9}]\n" for before, name in pairs)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "it is no YAML ('utf-8' codec"),
        (bytes(100), "it is no YAML (unacceptable character #x0000"),
        (bomb().encode(), "it has an alias"),
        (b"[" * 100_000, "it is nested too deep"),
        (b"layers: " + b"[" * 5000 + b"]" * 5000, "it is nested too deep"),
        (b"layers:\n" + b"- a\n" * 100_000, "has 400,008 bytes, more than 262,144"),
        (b"- 1", "it holds no settings"),
        (b"", "it holds no settings"),
        (b"1: 2", "it holds no settings"),
        (b"seed: !!python/object/apply:os.system [touch x]", "could not determine a constructor"),
        (b"config: other.yaml", "cannot choose recipes, seeds or files of runs; leave out config"),
        (b"recipe: hpff/table1/cifar10-resnet32-dgl", "leave out recipe"),
        (b"? [a]\n: b", "it is no YAML (while constructing a mapping"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_without_settings_is_told_at_once(content, sentence, tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    for command in (["train", "--config", str(file)], ["detect", "--config", str(file)], ["evaluate", str(tmp_path)]):
        assert run(*command) in (1, 2)
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        if command[0] != "evaluate":  # which first asks for the settings of a run
            assert f"{file}" in told
            assert sentence in told


def fifo(folder: Path) -> str:
    os.mkfifo(folder / "fifo")
    return str(folder / "fifo")


def sparse(folder: Path) -> str:
    with open(folder / "sparse", "wb") as file:
        file.truncate(2**37)
    return str(folder / "sparse")


@pytest.mark.parametrize("path", [fifo, sparse, str, lambda _: "/dev/zero", lambda folder: f"{folder}/none"])
def test_what_is_no_file_of_settings_is_not_opened(path, tmp_path, capsys):
    name = path(tmp_path)
    assert run("train", "--config", name) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {name} is no file of YAML: ")
    assert told.count("\n") == 1


def test_a_run_folder_with_a_pipe_as_settings_is_refused(tmp_path):
    os.mkfifo(tmp_path / "settings.yaml")
    with pytest.raises(LocalLearnError, match="is no regular file"):
        load_run(tmp_path)


def test_nested_lists_and_rules_are_read(tmp_path):
    (tmp_path / "settings.yaml").write_text("rule: {class_path: A, init_args: {rule: {class_path: B}}}\nlayers: [a, b]")
    assert read_yaml(tmp_path / "settings.yaml")["layers"] == ["a", "b"]

"""A file cannot run code: it may name what is registered, and other code only after --trust-code."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from command_line import result_of, run
from small_runs import settings

import locallearn as ll
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.registry import load
from locallearn.export import export_run, load_exported
from locallearn.training import load_run, train

HIDDEN = "locallearn.training.files.run_folder.os.system"
"""A function of the system, reached through a module of ours."""

CODE = """
from pathlib import Path
import locallearn as ll
Path("touched").touch()
class Mine(ll.DGL): pass
def make(*_, **__): Path("touched").touch()
"""

NAMES_CODE = [
    {"data": "os.system", "data_dir": "touch touched"},
    {"data": HIDDEN, "data_dir": "touch touched"},
    {"data": "stranger.make"},
    {"data": "stranger:make.x"},
    {"model": "stranger.make", "data": "digits"},
    {"rule": "stranger.Mine"},
    {"rule": {"class_path": "stranger.Mine"}},
    {"rule": {"class_path": "locallearn.MAN", "init_args": {"rule": "stranger.Mine"}}},
    {"rule": {"class_path": "locallearn.MAN", "init_args": {"rule": {"class_path": "stranger.Mine"}}}},
    {"optimizer": {"class_path": "stranger.make"}},
    {"schedule": "stranger.make"},
    {"schedule": {"class_path": HIDDEN, "init_args": {"command": "touch touched"}}},
    {"loss": "stranger.make"},
    {"trust_code": True, "model": "stranger.make", "data": "digits"},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(settings(model="small_runs.little", epochs=1), folder)
    return folder


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> Path:
    """The current folder, which holds a stranger's module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "stranger.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("stranger", None)


def assert_refused(capsys, *arguments: str) -> None:
    assert run(*arguments) in (1, 2)
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1, told
    assert "stranger" not in sys.modules
    assert not Path("touched").exists()


def changed(trained: Path, folder: Path, values: dict) -> Path:
    """A copy of a run whose settings a stranger changed."""
    shutil.copytree(trained, folder)
    old = yaml.safe_load((folder / "settings.yaml").read_text())
    (folder / "settings.yaml").write_text(yaml.safe_dump(old | {"model": "resnet20", "data": "digits"} | values))
    return folder


@pytest.mark.parametrize("values", NAMES_CODE, ids=str)
def test_no_command_runs_what_a_file_names(values, trained, stranger, capsys):
    folder = str(changed(trained, stranger / "run", values))
    for command in (
        ["evaluate", folder],
        ["train", "--resume", folder],
        ["train", "--config", f"{folder}/settings.yaml"],
    ):
        assert_refused(capsys, *command)
    if values.keys() & {"data", "model"}:
        (stranger / "run" / "data.json").unlink()  # the data set itself is read then
        assert_refused(capsys, "export", folder, "--out", "out")
        with pytest.raises(LocalLearnError):
            load_run(stranger / "run")
    assert not (stranger / "touched").exists()


def test_the_refusal_says_what_to_do(trained, stranger, capsys):
    folder = changed(trained, stranger / "run", {"rule": {"class_path": "stranger.Mine"}})
    assert_refused(capsys, "evaluate", str(folder), "--json")
    run("evaluate", str(folder))
    told = capsys.readouterr().err
    assert "names the code 'stranger.Mine'" in told
    assert "add --trust-code" in told


def test_a_file_cannot_choose_the_rules_of_compare(stranger, capsys):
    Path("c.yaml").write_text("rules: [stranger.Mine]")
    assert_refused(capsys, "compare", "--config", "c.yaml")


def test_the_name_of_a_folder_is_not_trusted_as_code(trained, stranger, capsys):
    changed(trained, stranger / "stranger.make", {"data": "stranger.make"})
    for options in (
        ["stranger.make"],
        ["--checkpoint", "last", "stranger.make"],
        ["--data", "digits", "stranger.make"],
    ):
        (stranger / "stranger.make" / "data.json").unlink(missing_ok=True)
        assert_refused(capsys, "evaluate", *options)


def test_a_settings_file_of_a_detector_runs_nothing(stranger, capsys):
    Path("d.yaml").write_text("optimizer: {class_path: stranger.make}\ncoco: nowhere")
    assert_refused(capsys, "detect", "--config", "d.yaml")


def test_an_export_runs_nothing(trained, tmp_path):
    folder = export_run(trained, tmp_path / "out", trust_code=True).parent
    with pytest.raises(LocalLearnError, match=r"names the code 'small_runs\.little'.*trust_code=True"):
        load_exported(folder)
    assert load_exported(folder, trust_code=True).name == "small_runs.little"


def test_trusted_code_is_named_before_its_import(trained, stranger, capsys):
    folder = str(
        changed(trained, stranger / "run", {"rule": {"class_path": "stranger.Mine"}, "model": "stranger.make"})
    )
    run("evaluate", folder, "--trust-code")
    told = capsys.readouterr().err
    assert "note: importing stranger.Mine, which a file names\nnote: importing stranger.make" in told
    assert (stranger / "touched").exists()


def test_code_that_the_user_types_is_imported(stranger, capsys):
    assert "MAN(Mine)" in result_of(
        capsys, "cost", "--rule", "man(stranger.Mine)", "--model", "small_runs.little", "--batch", "2"
    )


def test_a_run_of_the_users_own_code_needs_trust(trained, capsys):
    assert run("evaluate", str(trained)) == 1
    capsys.readouterr()
    found = result_of(capsys, "evaluate", str(trained), "--trust-code")
    assert 0 <= found[str(trained)]["accuracy"] <= 1
    assert load_run(trained, trust_code=True).name == "small_runs.little"


def test_a_run_of_registered_names_needs_none(tmp_path, capsys):
    rule = ll.MAN(rule=ll.AugLocal(depth=2))
    folder = tmp_path / "run"
    train(settings(model="resnet20", data="digits", train_images=64, rule=rule, epochs=1), folder)
    assert result_of(capsys, "evaluate", str(folder))
    assert result_of(capsys, "train", "--resume", str(folder))["epochs"] == 1
    assert run("train", "--config", str(folder / "settings.yaml"), "--print_config") == 0


def test_only_the_registry_imports_by_a_name_that_is_not_written_there():
    """A name in quotes is ours; any other may come from a file."""
    source = Path(ll.__file__).parent
    allowed = {"_utils/registry.py", "_utils/optional_imports.py"}
    for file in source.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in {"eval", "exec"} and isinstance(node.func, ast.Name):
                raise AssertionError(file)
            first = node.args[0] if node.args else None
            written = isinstance(first, ast.Constant) or (
                isinstance(first, ast.JoinedStr) and ast.unparse(first).startswith("f'locallearn.")
            )
            if name in {"resolve_name", "import_module", "__import__"} and not written:
                assert str(file.relative_to(source)) in allowed, file


def test_python_code_may_name_any_path():
    assert load("small_runs.little")


@pytest.mark.parametrize(
    "values", [{"model": 5}, {"model": None}, {"data_dir": 5}, {"data": ["x"]}, {"image_size": "x"}]
)
def test_settings_of_a_wrong_type_are_told_by_every_command(values, trained, stranger, capsys):
    folder = str(changed(trained, stranger / "run", values))
    for command in (["evaluate", folder], ["train", "--resume", folder], ["export", folder, "--out", "out"]):
        assert_refused(capsys, *command)

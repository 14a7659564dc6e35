"""`locallearn train --recipe` and `locallearn list recipes`."""

import json

import pytest
import yaml
from command_line import result_of, run

from locallearn.cli.commands import evaluate
from locallearn.detection import DetectSettings
from locallearn.recipes import find
from locallearn.training import TrainSettings, Transfer, as_yaml


def printed_settings(capsys, *options: str) -> dict:
    assert run("train", *options, "--print_config") == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_options_override_a_recipe_wherever_they_stand(capsys):
    name = "man/table1/cifar10-resnet32-man-dgl"
    values = printed_settings(capsys, "--seed", "3", "--rule.momentum", "0.9", "--recipe", name, "--batch", "64")
    assert (values["seed"], values["batch"], values["epochs"], values["modules"]) == (3, 64, 400, "hpff-16")
    assert values["rule"]["class_path"] == "locallearn.MAN"
    assert values["rule"]["init_args"]["momentum"] == 0.9
    assert "recipe" not in values


def test_a_recipe_that_cannot_run_is_refused(capsys):
    assert run("train", "--recipe", "auglocal/table9/cifar10-resnet110-predsim-d2") != 0
    assert "cannot run" in capsys.readouterr().err
    assert run("train", "--recipe", "a/b/c", "--recipe", "a/b/c") != 0
    assert "given twice" in capsys.readouterr().err


def test_list_recipes(capsys):
    found = result_of(capsys, "list", "recipes", "hpff/table4a")
    assert [one["published"][0]["value"] for one in found.values()] == [14.08, 10.51, 9.44, 8.94]
    found = result_of(capsys, "list", "recipes", "hpff/table1/cifar10-resnet32-dgl")
    assert found["hpff/table1/cifar10-resnet32-dgl"]["paper_settings"]["modules"] == "all"
    assert result_of(capsys, "list", "recipes", "recomm")["recommended"]["paper_settings"] == {}
    assert run("list", "recipes", "mlaan/table6/*mlaan") == 0
    output = capsys.readouterr()
    assert "mlaan/table6/cifar10-resnet32-mlaan-dgl" in output.out
    assert "then locallearn evaluate RUN with the same --recipe" in output.err
    assert "│ evaluate │" in output.out
    assert "ResNet-32 (K=16), DGL*: test accuracy 37.65 %" in output.out
    assert run("list", "recipes", "auglocal/table1/cifar10-resnet32-bp") == 0
    assert "400, 1024, 0.8, 3" in capsys.readouterr().out, "trials are shown"


def test_the_recommended_recipe_takes_options_too(capsys):
    values = printed_settings(capsys, "--recipe", "recommended", "--epochs", "40", "--data", "digits")
    assert (values["epochs"], values["data"], values["train_images"]) == (40, "digits", None)
    assert values["rule"]["class_path"] == "locallearn.AugLocal"
    assert values["schedule"]["init_args"]["warmup"] == find("recommended").settings.schedule.warmup
    assert list(result_of(capsys, "list", "recipes", "recomm")) == ["recommended"]


def test_list_one_kind(capsys):
    assert run("list", "models", "resnet2*", "--json") == 0
    assert list(json.loads(capsys.readouterr().out)) == ["models"]
    assert run("list", "ruls") != 0
    assert "did you mean 'rules'" in capsys.readouterr().err


ROW = "mlaan/table6/cifar10-resnet32-dgl"
DETECTION = "auglocal/table12/imagenet-resnet34-bp"


def test_evaluations_and_detection_have_recipes_of_their_own(capsys):
    assert find(ROW).test_data == "stl10"
    assert find(DETECTION).detection == DetectSettings()
    assert run("detect", "RUN", "--epochs", "3", "--recipe", DETECTION, "--print_config") == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert (values["epochs"], values["batch"], values["optimizer"]["class_path"]) == (
        3,
        16,
        "locallearn.training.AdamW",
    )


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (f"evaluate RUN --recipe {DETECTION}", "is none of locallearn evaluate"),
        (f"evaluate RUN --recipe {ROW} --data digits", "tests on stl10: leave out --data digits"),
        (
            f"evaluate RUN --recipe {ROW}",
            f"RUN has the data digits, and recipe {ROW} cifar10",
        ),
        (f"detect RUN --recipe {DETECTION}", "has the data digits, and recipe"),
        (f"detect RUN --recipe {ROW}", "is none of locallearn detect"),
    ],
)
def test_a_recipe_beside_another_run_is_refused(command, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN/settings.yaml").write_text(as_yaml(TrainSettings(data="digits")))
    assert run(*command.split()) != 0
    assert told in capsys.readouterr().err


def test_an_evaluation_stands_beside_the_published_number(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "evaluate_run", lambda *_, **asked: transfer(asked["data"]))
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN/settings.yaml").write_text(as_yaml(find(ROW).settings))
    found = result_of(capsys, "evaluate", str(tmp_path / "RUN"), "--recipe", ROW)[str(tmp_path / "RUN")]
    assert (found["accuracy"], found["published"], list(found["classes"])) == (0.3, {"test accuracy": 31.95}, ["stl10"])
    assert run("evaluate", str(tmp_path / "RUN"), "--recipe", ROW) == 0
    assert "31.95 %" in capsys.readouterr().out


def transfer(data: str) -> Transfer:
    values = {"accuracy": 0.3, "shared_accuracy": 0.3, "images": 9, "class_accuracies": {}}
    return Transfer(**values, classes={data: data}, left_out={}, never_right={})

"""`locallearn train --recipe` and `locallearn list recipes`."""

import json

import yaml
from command_line import result_of, run


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
    assert run("list", "recipes", "mlaan/table6/*mlaan") == 0
    output = capsys.readouterr()
    assert "mlaan/table6/cifar10-resnet32-mlaan-dgl" in output.out
    assert "locallearn evaluate RUN --data stl10" in output.err


def test_list_one_kind(capsys):
    assert run("list", "models", "resnet2*", "--json") == 0
    assert list(json.loads(capsys.readouterr().out)) == ["models"]
    assert run("list", "ruls") != 0
    assert "did you mean 'rules'" in capsys.readouterr().err

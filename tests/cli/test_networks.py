"""Networks of torchvision and timm on the command line."""

from __future__ import annotations

import json

import pytest
from test_cli import result_of, run

from locallearn.cli import main


def test_cost_of_a_network_of_timm_with_layers_that_are_named(capsys):
    given = ["cost", "--model", "timm:resnet10t", "--rule", "dgl", "--image", "3x32x32", "--batch", "2"]
    found = result_of(capsys, *given, "--layers", '["maxpool", "layer2", "layer4"]')
    assert found["DGL"]["module_names"] == ["maxpool", "layer2", "layer4"]
    assert found["DGL"]["auxiliary_parameters"] > 0 == found["BP"]["auxiliary_parameters"]


def test_training_a_transformer(tmp_path, capsys):
    folder = tmp_path / "run"
    given = [
        "--model",
        "timm:vit_pwee_patch16_reg1_gap_256",
        "--data",
        "digits",
        "--train-images",
        "64",
        "--batch",
        "32",
    ]
    assert run("train", *given, "--rule", "pooling", "--modules", "2", "--epochs", "1", "--out", str(folder)) == 0
    assert json.loads((folder / "result.json").read_text())["auxiliary_parameters"] > 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("torchvision:resnet1", "torchvision has no network 'resnet1'; did you mean"),
        ("keras:resnet50", "unknown library 'keras' of networks; known: timm, torchvision"),
    ],
)
def test_unknown_networks_are_told(model, sentence, capsys):
    assert main(["cost", "--model", model]) == 1
    assert sentence in capsys.readouterr().err

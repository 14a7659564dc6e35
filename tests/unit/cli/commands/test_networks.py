"""Networks of torchvision and timm on the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from command_line import result_of, run

from locallearn.cli.main import main


def test_cost_of_a_network_of_timm_with_layers_that_are_named(capsys):
    given = ["cost", "--model", "timm:resnet10t", "--rule", "dgl", "--image", "3x32x32", "--batch", "2"]
    found = result_of(capsys, *given, "--layers", '["maxpool", "layer2", "layer4"]')
    assert found["DGL"]["module_names"] == ["maxpool", "layer2", "layer4"]
    assert found["DGL"]["auxiliary_parameters"] > 0 == found["BP"]["auxiliary_parameters"]


@pytest.mark.parametrize("command", ["train", "cost"])
def test_a_single_layer_is_named_by_its_name(command, tmp_path, capsys):
    given = ["--model", "timm:resnet10t", "--rule", "dgl", "--batch", "32", "--layers", "layer2"]
    more = {
        "train": ["--data", "digits", "--train-images", "64", "--epochs", "1", "--out", str(tmp_path / "run")],
        "cost": [],
    }
    result_of(capsys, command, *given, *more[command])
    if command == "train":
        assert "layers: layer2" in (tmp_path / "run" / "settings.yaml").read_text()


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
        ("resnet18", "unknown model 'resnet18'; did you mean 'torchvision:resnet18'?"),
        ("torchvision:vit_b_16", "torchvision:vit_b_16 cannot be made for images of 30 pixels: Input shape"),
        (
            "timm:twins_pcpvt_small",
            "for images of 30 pixels: img_size (30, 30) should be divided by patch_size (4, 4).",
        ),
        ("cifar-vit-tiny", "Wrong image height! Expected 32 but got 30. Is input_shape right"),
        ("keras:resnet50", "library='keras' is not valid; known: timm, torchvision"),
    ],
)
def test_networks_that_cannot_be_made_are_told(model, sentence, capsys):
    assert main(["cost", "--model", model, "--image", "3x30x30"]) == 1
    *progress, error = capsys.readouterr().err.splitlines()
    assert sentence in error
    assert len(progress) <= 1


def test_an_image_that_is_too_small_is_told_without_a_log_of_pytorch():
    given = ["cost", "--model", "torchvision:vgg11", "--image", "3x16x16"]
    found = subprocess.run([sys.executable, "-m", "locallearn", *given], capture_output=True, text=True)
    assert found.returncode == 1
    *progress, error = found.stderr.splitlines()
    assert "Output size is too small" in error
    assert len(progress) == 1

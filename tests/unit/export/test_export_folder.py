"""Exported backbones, loaded by programs that know nothing of locallearn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import settings
from torch import nn

import locallearn as ll
from locallearn import LocalLearnError
from locallearn.cli.main import main
from locallearn.export import export, export_run, load_exported
from locallearn.export.model_source import model_source_of
from locallearn.training import RunFolder, Trained, data_of, load_run, make_model, train

# This torchvision may be made for another PyTorch: then the operators that it describes must be declared by hand.
BEFORE = """
import json, os, sys
import torch
torch.set_num_threads(1)
try:
    import torchvision
except RuntimeError:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
AFTER = """
with torch.no_grad():
    torch.save(model(torch.load("images.pt")), "logits.pt")
assert not [name for name in sys.modules if name.startswith("locallearn")]
"""
NETWORKS = {  # to the shape of an image
    "resnet32": (3, 16, 16),
    "cifar-resnet34": (3, 16, 16),
    "cifar-vgg13": (1, 32, 32),
    "cifar-mobilenet-v2": (3, 16, 16),
    "cifar-efficientnet-b0": (3, 32, 32),
    "cifar-regnet-x-400mf": (1, 16, 16),
    "cifar-vit-tiny": (1, 32, 32),
    "torchvision:resnet18": (1, 64, 64),
    "timm:resnet10t": (1, 64, 64),
    "timm:vit_pwee_patch16_reg1_gap_256": (3, 32, 32),
}


def run_apart(folders: dict[Path, list[str]]) -> None:
    """Run lines of Python in each folder, one after the other in one process."""
    program = BEFORE
    for folder, lines in folders.items():
        program += "\n".join([f"os.chdir({str(folder)!r})", *lines, AFTER])
    result = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def lines_of(folder: Path) -> list[str]:
    return json.loads((folder / "config.json").read_text())["how_to_load"]


def made(name: str, shape: tuple[int, int, int]) -> Trained:
    """A network with statistics that are not those of the beginning."""
    torch.manual_seed(0)
    model = make_model(name, classes=3, image_shape=shape).train()
    with torch.no_grad():
        model(torch.randn(4, *shape))
    channels = shape[0]
    return Trained(
        model=model.eval(),
        name=name,
        classes=("ant", "bee", "cow"),
        image_shape=shape,
        mean=(0.4,) * channels,
        std=(0.2,) * channels,
        how={"epochs": 0, "test_accuracy": None},
    )


def trained_in(folder: Path, **changes) -> Path:
    asked = settings(model="resnet20", data="digits", train_images=200, epochs=1, rule=ll.DGL(hidden=1), **changes)
    train(asked, folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return trained_in(tmp_path_factory.mktemp("runs") / "run")


def test_the_accuracy_after_loading_is_that_of_training(trained, tmp_path, capsys):
    runs = {"fp32": trained, "bf16": trained_in(tmp_path / "run", precision="bf16")}
    images = data_of(settings(data="digits"))
    test = torch.from_numpy(images.test.images).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(images.test.labels)
    expected: dict[Path, tuple[torch.dtype, float]] = {}
    for (precision, run), format in product(runs.items(), ("safetensors", "torch-export")):
        accuracy = json.loads((run / "result.json").read_text())["test_accuracy"]
        out = tmp_path / f"{precision}-{format}"
        assert main(["export", str(run), "--out", str(out), "--format", format, "--json"]) == 0
        about = json.loads(capsys.readouterr().out)
        assert about["bytes"] == Path(about["path"]).stat().st_size
        config = about["config"]
        assert config["locallearn"]["trained"]["test_accuracy"] == accuracy
        assert config["locallearn"]["trained"]["test_precision"] == precision
        assert (config["num_classes"], config["label_names"][9]) == (10, "9")
        mean, std = (torch.tensor(config["input"][name]).view(-1, 1, 1) for name in ("mean", "std"))
        torch.save((test - mean) / std, out / "images.pt")
        expected[out] = ({"fp32": torch.float32, "bf16": torch.bfloat16}[precision], accuracy)
    run_apart({out: lines_of(out) for out in expected})
    for out, (dtype, accuracy) in expected.items():
        logits = torch.load(out / "logits.pt")
        assert logits.dtype == dtype
        assert float((logits.argmax(1) == labels).double().mean()) == accuracy


def test_networks_of_every_family_are_loaded_by_torchvision_or_timm_alone(tmp_path):
    folders: dict[Path, list[str]] = {}
    expected: dict[Path, torch.Tensor] = {}
    for name, shape in NETWORKS.items():
        network, folder = made(name, shape), tmp_path / name.replace(":", "-")
        export(network, folder)
        images = torch.randn(2, *shape)
        ways = {folder: lines_of(folder)}
        if name.startswith("timm:"):
            again = shutil.copytree(folder, folder.with_name(f"{folder.name}-local-dir"))
            ways[again] = ["import timm", "model = timm.create_model('local-dir:.', pretrained=True).eval()"]
        for way in ways:
            torch.save(images, way / "images.pt")
            with torch.no_grad():
                expected[way] = network.model(images)
        folders |= ways
    run_apart(folders)
    for folder, logits in expected.items():
        assert torch.equal(torch.load(folder / "logits.pt"), logits), folder.name


def test_networks_that_are_bound_to_a_size_of_images_are_made_for_it():
    with torch.device("meta"):
        model = make_model("torchvision:vit_b_32", classes=3, image_shape=(3, 64, 64))
        lines = model_source_of(model, "torchvision:vit_b_32", classes=3, image_shape=(3, 64, 64)).lines
    assert lines[2:] == (
        "model = torchvision.models.get_model('vit_b_32', weights=None, num_classes=3, image_size=64)",
    )


def test_keys_are_torchvisions_and_auxiliary_networks_are_left_out(trained, tmp_path):
    from safetensors.torch import load_file

    state = load_file(export_run(trained, tmp_path / "out"))
    assert set(state) == set(ll.models.resnet20().state_dict())
    assert "layer2.0.downsample.0.weight" in state


def test_a_run_is_loaded_without_its_data_and_a_run_that_wrote_nothing_of_it_too(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    (copy / "settings.yaml").write_text(
        (copy / "settings.yaml").read_text().replace("data: digits", "data: nothing.at")
    )
    found = load_run(copy)
    (trained / "data.json").rename(tmp_path / "data.json")
    again = load_run(trained)
    shutil.move(tmp_path / "data.json", trained / "data.json")
    assert (found.classes, found.mean, found.image_shape) == (again.classes, again.mean, again.image_shape)
    assert found.image_shape == (3, 16, 16)
    best = load_run(trained, checkpoint="best")
    assert best.how["test_accuracy"] == json.loads((trained / "result.json").read_text())["best_accuracy"]
    assert load_run(trained / "best.pt").how == best.how


def test_weights_that_never_end_are_told(trained, tmp_path):
    folder = tmp_path / "out"
    export_run(trained, folder)
    weights = folder / "model.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(LocalLearnError, match=r"no export .*model\.safetensors is no regular file"):
        load_exported(folder)


def test_an_export_is_read_again(trained, tmp_path):
    export_run(trained, tmp_path / "out")
    there, back = load_run(trained), load_exported(tmp_path / "out")
    assert (back.name, back.classes, back.image_shape) == (there.name, there.classes, there.image_shape)
    assert (back.mean, back.std) == (there.mean, there.std)
    assert "data_dir" not in back.how["settings"]
    for name, part in there.model.state_dict().items():
        assert torch.equal(part, back.model.state_dict()[name])
    assert not back.model.training


def test_onnx_gives_the_same_logits_for_any_number_of_images(tmp_path):
    from onnx import load
    from onnx.reference import ReferenceEvaluator

    network = made("small_runs.little", (3, 8, 8))
    path = export(replace(network, how={"test_precision": "bf16"}), tmp_path / "out", format="onnx")
    assert lines_of(path.parent)[-1] == "# it computes in fp32; the test accuracy was measured in bf16"
    images = torch.randn(3, 3, 8, 8)
    (logits,) = ReferenceEvaluator(load(path)).run(None, {"images": images.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(logits), network.model(images), atol=1e-5)


def test_a_network_of_ones_own_is_made_by_its_own_code(tmp_path):
    export(made("small_runs.little", (3, 8, 8)), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["library"] is None
    assert config["how_to_load"][:2] == [
        "from small_runs import little",
        "model = little(num_classes=3, in_channels=3)",
    ]


class Deciding(nn.Module):
    """What it computes depends on the values of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, images):
        features = images.flatten(1)
        return self.linear(features if features.sum() > 0 else -features)


def deciding(num_classes: int, in_channels: int) -> nn.Module:
    return Deciding()


def test_mistakes_are_told_in_a_sentence(trained, tmp_path, capsys, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "empty").mkdir()
    for arguments, told in (
        ([str(tmp_path / "full"), "--out", str(tmp_path / "out")], "holds no run"),
        ([str(trained), "--out", str(tmp_path / "full")], "holds other files"),
        ([str(trained), "--out", str(tmp_path / "full" / "file")], "holds other files"),
        ([str(trained / "other.pt"), "--out", str(tmp_path / "out")], "other.pt is missing"),
    ):
        assert main(["export", *arguments]) == 1
        assert told in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert main(["export", str(trained), "--out", str(tmp_path / "empty")]) == 0
    (tmp_path / "empty" / "model.safetensors").unlink()
    with pytest.raises(LocalLearnError, match=r"no export of the format safetensors: there is no model.safetensors"):
        load_exported(tmp_path / "empty")
    with pytest.raises(LocalLearnError, match="Deciding cannot be exported as a program"):
        export(made(f"{__name__}.deciding", (1, 2, 2)), tmp_path / "out", format="torch-export")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(LocalLearnError, match=r"onnxscript is not installed: run pip install 'locallearn\[onnx\]'"):
        export_run(trained, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()


def test_a_flipped_byte_is_noticed_wherever_it_is(trained, tmp_path):
    weights = export_run(trained, tmp_path / "out")
    run = RunFolder(shutil.copytree(trained, tmp_path / "run"))
    for path, load in (
        (weights, lambda: load_exported(tmp_path / "out")),
        (weights.with_name("config.json"), lambda: load_exported(tmp_path / "out")),
        (run.data, lambda: load_run(run.path)),
    ):
        content = path.read_bytes()
        for position in range(0, len(content), max(1, len(content) // 40)):
            damaged = bytearray(content)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            if path.suffix == ".json" and _json_or_none(damaged) == _json_or_none(content):
                continue  # white space
            with pytest.raises(LocalLearnError, match=rf"{path.name} is damaged"):
                load()
        path.write_bytes(content)


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("data.json", "{", "data.json is damaged: it is no JSON (Expecting"),
        (
            "data.json",
            "[]",
            "data.json is damaged, or was changed or written by another program: put a copy of it back",
        ),
        ("settings.yaml", "a: [", "settings.yaml is damaged: it is no YAML (while parsing"),
        ("settings.yaml", "- a", "settings.yaml is damaged: it holds no settings"),
        ("settings.yaml", "coco: a", "holds no run of locallearn train: its settings name no model"),
        ("settings.yaml", "model: resnet32", "last.pt do not fit resnet32: has its code changed?"),
        ("metrics.jsonl", "{\n", "metrics.jsonl is damaged: each line must be JSON"),
    ],
)
def test_damaged_files_of_a_run_are_told(trained, tmp_path, capsys, file, content, told):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / file).write_text(content)
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 1
    sentence = capsys.readouterr().err
    assert told in sentence
    assert sentence.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_damaged_descriptions_and_other_weights_of_an_export_are_told(trained, tmp_path):
    folder = export_run(trained, tmp_path / "out").parent
    config = folder / "config.json"
    whole = config.read_text()
    for content, told in (
        ("{", "config.json is damaged: it is no JSON"),
        ("{}", "config.json is damaged, or was changed or written by another program: export again"),
        (whole.replace('"model": "resnet20"', '"model": "resnet32"'), "config.json is damaged, or was changed"),
    ):
        config.write_text(content)
        with pytest.raises(LocalLearnError, match=told):
            load_exported(folder)

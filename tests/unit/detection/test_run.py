"""Trained backbones inside Mask R-CNN."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import settings as run_settings
from tiny_coco import tiny_coco
from torch import nn

import locallearn as ll
from locallearn import LocalLearnError
from locallearn.cli.main import main
from locallearn.detection import DetectSettings, Pyramid, detect, mask_rcnn
from locallearn.detection.coco import Coco
from locallearn.detection.loading import TrainingImages
from locallearn.detection.metrics import average_precision
from locallearn.detection.region_operators import import_detection
from locallearn.export import export
from locallearn.training import SGD, Interrupted, RunFolder, Trained, Watcher, load_run, make_model, train

torchvision = import_detection()
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
SMALL = {"epochs": 2, "batch": 2, "max_size": 64, "channels": 16, "regions": 16, "proposals": 10, "workers": 0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of a local rule."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    asked = run_settings(model="torchvision:resnet18", image_size=32, train_images=32, epochs=1, rule=ll.Pooling())
    train(asked, folder)
    return folder


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    return tiny_coco(tmp_path_factory.mktemp("coco") / "set")


def stages(num_classes: int, in_channels: int) -> nn.Sequential:
    """A little network of four strides."""
    parts: list[nn.Module] = []
    for before, after, stride in ((in_channels, 8, 4), (8, 8, 2), (8, 16, 2), (16, 16, 2)):
        parts += [nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))


def asked(trained: Path, coco: Path, **changes: Any) -> DetectSettings:
    return DetectSettings(**({"source": trained, "coco": coco, "optimizer": SGD(lr=0.01)} | SMALL | changes))


def network(name: str, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return make_model(name, classes=3, image_shape=(channels, 128, 128))


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in RunFolder(folder).rows()]


def test_features_are_those_of_torchvisions_own_pyramid():
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    theirs = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=3)
    ours = Pyramid(network("torchvision:resnet18"))
    ours.body.load_state_dict(theirs.body.state_dict(), strict=False)
    ours.fpn.load_state_dict(theirs.fpn.state_dict())
    images = torch.randn(2, 3, 96, 64)
    found, expected = ours(images), theirs(images)
    assert list(found) == list(expected) == ["0", "1", "2", "3", "pool"]
    for name, level in expected.items():
        assert torch.allclose(found[name], level, atol=1e-5)
    mine = {name for name, p in ours.body.named_parameters() if p.requires_grad}
    assert mine == {name for name, p in theirs.body.named_parameters() if p.requires_grad}


def test_frozen_stages_and_batch_normalisation_stay_as_they_are():
    pyramid = Pyramid(network("torchvision:resnet18"), frozen_stages=2).train()
    before = {name: part.clone() for name, part in pyramid.body.state_dict().items()}
    sum(level.square().mean() for level in pyramid(torch.randn(1, 3, 64, 64)).values()).backward()
    torch.optim.SGD([p for p in pyramid.parameters() if p.requires_grad], lr=0.1).step()
    changed = {name for name, part in pyramid.body.state_dict().items() if not torch.equal(part, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"layer3", "layer4"}
    assert all("conv" in name or name.endswith("downsample.0.weight") for name in changed)
    assert {name for name in pyramid.state_dict() if not name.startswith("fpn.")} == {f"body.{name}" for name in before}
    none = Pyramid(network("torchvision:resnet18"), frozen_stages=0)
    assert none.body.get_parameter("conv1.weight").requires_grad
    assert not none.body.get_parameter("fc.weight").requires_grad


@pytest.mark.parametrize("name", ["mobilenet-v2", "efficientnet-b0", "regnet-x-400mf", "timm:convnext_atto"])
def test_any_chain_with_four_strides_is_a_backbone(name):
    pyramid = Pyramid(network(name), channels=8).eval()
    with torch.no_grad():
        levels = pyramid(torch.randn(1, 3, 96, 160))
    assert [tuple(level.shape[1:]) for level in levels.values()] == [
        *((8, 96 // stride, 160 // stride) for stride in (4, 8, 16, 32)),
        (8, 2, 3),
    ]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cifar-resnet34", r"strides 1, 2, 4, 8, but .* \(16, 32 missing\). Take a network of four stages"),
        ("resnet20", r"strides 1, 2, 4, but .* forms for small images .* end before"),
        (
            "cifar-vit-tiny",
            "VisionTransformer cannot be the backbone of a detector, which must take images of any",
        ),
    ],
)
def test_backbones_without_four_strides_are_refused(name, sentence):
    torch.manual_seed(0)
    with pytest.raises(LocalLearnError, match=sentence):
        Pyramid(make_model(name, classes=3, image_shape=(3, 32, 32)))


def test_targets_are_single_objects_and_flips_mirror_them(coco):
    images = TrainingImages(Coco(coco, "train2017"), seed=0)
    assert images.ids == [1, 2, 3, 4, 5]  # the sixth has no objects
    seen: set[bool] = set()
    for epoch in range(1, 9):
        image, target = images[0, epoch]
        assert image.shape == (3, 64, 72)
        assert len(target["boxes"]) == 2  # and a crowd, which does not count
        assert set(target["labels"].tolist()) <= {1, 2}
        for box, mask, label in zip(target["boxes"], target["masks"], target["labels"], strict=True):
            ys, xs = mask.nonzero(as_tuple=True)
            around = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
            assert (around - box).abs().max() <= 1
            colour = image[:, mask.bool()].mean(1)
            assert colour.argmax() == (0 if label == 1 else 2)  # squares are red, triangles blue
        again, _ = images[0, epoch]
        assert torch.equal(again, image)
        seen.add(torch.equal(image, images.coco.image(1)))
    assert seen == {True, False}


class Knowing(nn.Module):
    """Answers the truth, shifted to the right by a share of its width."""

    def __init__(self, coco: Coco, shift: float) -> None:
        super().__init__()
        self.coco, self.shift, self.keys = coco, shift, iter(coco.ids)

    def forward(self, images):
        target = self.coco.target(next(self.keys), tuple(images[0].shape[1:]))
        boxes = target["boxes"].clone()
        width = ((boxes[:, 2] - boxes[:, 0]) * self.shift).round()
        boxes[:, 0::2] += width[:, None]
        masks = torch.stack([mask.roll(int(w), 1) for mask, w in zip(target["masks"].float(), width, strict=True)])
        scores = torch.ones(len(boxes))
        return [{"boxes": boxes, "labels": target["labels"], "scores": scores, "masks": masks[:, None]}]


def test_average_precision_of_the_truth_and_beside_it(coco):
    test = Coco(coco, "val2017")
    found = average_precision(Knowing(test, 0.0), test, device=torch.device("cpu"))
    assert all(value == pytest.approx(1.0) for value in found.values())
    assert len(found) == 6
    beside = average_precision(Knowing(test, 0.25), test, device=torch.device("cpu"))  # overlaps by 0.75 / 1.25 = 0.6
    assert (beside["box_ap50"], beside["box_ap75"]) == (pytest.approx(1.0), 0.0)
    assert 0.15 < beside["box_ap"] < 0.45
    assert beside["mask_ap50"] < 1.0 == found["mask_ap50"]  # a triangle overlaps itself less


def test_a_run_is_fine_tuned_and_evaluated_by_one_command(trained, coco, tmp_path, capsys):
    small = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    out = tmp_path / "run"
    given = ["detect", str(trained), "--coco", str(coco), *small, "--optimizer", "sgd", "--optimizer.lr", "0.01"]
    assert main([*given, "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = RunFolder(out).rows()
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["train_loss"] < rows[0]["train_loss"]
    assert set(rows[0]["losses"]) == {
        *("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"),
    }
    assert result["backbone"]["model"] == "torchvision:resnet18"
    assert result["backbone"]["test_accuracy"] == RunFolder(trained).rows()[-1]["test_accuracy"]
    assert all(0 <= result[f"{kind}_{name}"] <= 1 for kind in ("box", "mask") for name in ("ap", "ap50", "ap75"))
    assert json.loads((out / "result.json").read_text()) == result
    repeat = json.loads((out / "environment.json").read_text())["repeat"].split()
    again = [*repeat[1:-1], str(tmp_path / "again"), "--epochs", "1"]
    assert main(again) == 0
    assert "masks" in capsys.readouterr().out
    assert timeless(tmp_path / "again")[0]["losses"].keys() == rows[0]["losses"].keys()


class StopsAfterAnEpoch(Watcher):
    def __init__(self) -> None:
        self.stopping = False

    def epoch(self, row: dict[str, Any]) -> None:
        self.stopping = True

    def stop_requested(self) -> bool:
        return self.stopping


def test_a_stopped_run_goes_on_as_if_it_had_not(coco, tmp_path, capsys):
    small = Trained(
        model=stages(3, 3).eval(), name=f"{__name__}.stages", classes=("a", "b", "c"), image_shape=(3, 64, 64),
        mean=(0.5,) * 3, std=(0.3,) * 3, how={},
    )  # fmt: skip
    backbone = export(small, tmp_path / "export").parent
    whole = detect(asked(backbone, coco, workers=1), tmp_path / "whole")
    with pytest.raises(Interrupted):
        detect(asked(backbone, coco), tmp_path / "run", watcher=StopsAfterAnEpoch())
    assert [row["epoch"] for row in timeless(tmp_path / "run")] == [1]
    assert main(["detect", "--resume", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mask_ap"] == whole["mask_ap"]
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")
    with pytest.raises(LocalLearnError, match="a run with other settings"):
        detect(asked(backbone, coco, epochs=3), tmp_path / "run", resume=True)


def test_the_backbone_in_the_detector_is_the_trained_one(trained):
    state = load_run(trained).model.state_dict()
    detector = mask_rcnn(load_run(trained), categories=2, channels=8)
    inside = detector.get_submodule("backbone.body").state_dict()
    assert all(torch.equal(part, state[name]) for name, part in inside.items())
    assert detector.get_submodule("transform").image_mean == [120 / 255] * 3
    assert len(detector.get_submodule("roi_heads.mask_predictor.mask_fcn_logits").bias) == 3


def test_the_learning_rate_is_that_of_the_1x_schedule():
    settings = DetectSettings(optimizer=SGD(lr=0.02))
    assert settings.lr(epoch=1, step=0, steps=7330) == pytest.approx(0.02 / 500)
    assert settings.lr(epoch=1, step=499, steps=7330) == settings.lr(epoch=8, step=7329, steps=7330) == 0.02
    assert settings.lr(epoch=9, step=0, steps=7330) == settings.lr(epoch=11, step=5, steps=7330) == pytest.approx(0.002)
    assert settings.lr(epoch=12, step=0, steps=7330) == pytest.approx(0.0002)
    assert settings.lr(epoch=1, step=24, steps=25) == 0.02


def test_a_loss_that_is_not_finite_stops(trained, coco, tmp_path):
    with pytest.raises(LocalLearnError, match=r"the loss became (nan|inf) in epoch 1, step \d: take a lower --opt"):
        detect(asked(trained, coco, optimizer=SGD(lr=1e30)), tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_mistakes_are_told_in_a_sentence(trained, coco, tmp_path, capsys, monkeypatch):
    def told(*arguments: object) -> str:
        assert main(["detect", *map(str, arguments), "--out", str(tmp_path / "run")]) == 1
        assert not (tmp_path / "run").exists()
        return capsys.readouterr().err

    assert "the backbone is missing" in told("--coco", coco)
    assert "holds no run" in told(tmp_path, "--coco", coco)
    assert "there is no folder nothing for COCO" in told(trained, "--coco", "nothing")
    assert "frozen_stages=5: a backbone has four stages" in told(trained, "--coco", coco, "--frozen-stages", "5")
    assert "batch=0 must be at least 1" in told(trained, "--coco", coco, "--batch", "0")
    assert "max_size=8 must be at least 32" in told(trained, "--coco", coco, "--max-size", "8")
    assert main(["detect", str(trained), "--resume", str(tmp_path)]) == 1
    assert "leave out the other options" in capsys.readouterr().err
    assert main(["detect", "--resume", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err
    assert main(["detect", "--resume", str(trained)]) == 1
    assert "holds no run of locallearn detect: its settings name no coco" in capsys.readouterr().err
    broken = tiny_coco(tmp_path / "broken", images=2)
    (broken / "val2017" / "000000000002.png").unlink()
    assert "val2017/000000000002.png is missing, which instances_val2017.json lists" in told(trained, "--coco", broken)
    (broken / "annotations" / "instances_val2017.json").write_text("{}")
    assert "is no list of COCO's instances" in told(trained, "--coco", broken)
    (broken / "annotations" / "instances_val2017.json").unlink()
    assert "has no annotations/instances_val2017.json: lay COCO out as" in told(trained, "--coco", broken)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    assert "pycocotools is not installed: run pip install 'locallearn[coco]'" in told(trained, "--coco", coco)


@pytest.mark.parametrize(
    ("split", "of", "changes", "told"),
    [
        ("train", "images", {"file_name": None}, "image 1 has no file_name"),
        ("train", "images", {"height": "64"}, "image 1 has no height and width"),
        ("train", "images", {"id": ...}, r"images\[0\] \(id missing\) has no id"),
        ("train", "annotations", {"category_id": ...}, r"annotations\[0\] \(id 1\) has no category_id"),
        ("train", "annotations", {"category_id": 4}, "annotation 1 of image 1 has category_id 4, which is not in the"),
        ("val", "annotations", {"bbox": ...}, "annotation 1 of image 1 has no bbox of four numbers"),
        ("train", "annotations", {"bbox": [1, 2, 3]}, "annotation 1 of image 1 has no bbox of four numbers"),
        ("train", "annotations", {"segmentation": "polygon"}, "annotation 1 of image 1 has a segmentation that is nei"),
        ("train", "annotations", {"segmentation": [[1, 2, 3, "a", 5, 6]]}, "has a segmentation that is neither"),
        ("train", "annotations", {"segmentation": {"size": [2, 2], "counts": [4]}}, "nor run lengths of the image's"),
        ("val", "annotations", {"segmentation": []}, "has no segmentation, which the evaluation needs"),
        ("val", "annotations", {"area": ...}, "has no area, which the evaluation needs"),
        ("val", "annotations", {"iscrowd": ...}, "has no iscrowd, which the evaluation needs"),
    ],
)
def test_incomplete_annotations_are_told_with_their_file(tmp_path, split, of, changes, told):
    folder = tiny_coco(tmp_path / "set", images=2)
    path = folder / "annotations" / f"instances_{split}2017.json"
    content = json.loads(path.read_text())
    first = content[of][0] | changes
    content[of][0] = {name: value for name, value in first.items() if value is not ...}
    path.write_text(json.dumps(content))
    with pytest.raises(LocalLearnError, match=rf"instances_{split}2017\.json: .*{told}"):
        Coco(folder, f"{split}2017")


def test_annotations_of_images_that_are_not_used_are_not_looked_at(tmp_path):
    folder = tiny_coco(tmp_path / "set", images=2)
    path = folder / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"][1]["file_name"] = None
    content["annotations"][0]["segmentation"] = []  # is left out of training
    path.write_text(json.dumps(content))
    assert len(Coco(folder, "train2017", images=1).objects(1)) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(trained, tmp_path, workers):
    broken = tiny_coco(tmp_path / "broken", images=2)
    (broken / "train2017" / "000000000001.png").write_bytes(b"no image")
    with pytest.raises(LocalLearnError, match=r"^\S+train2017/000000000001.png cannot be read: cannot identify"):
        detect(asked(trained, broken, workers=workers), tmp_path / "run")


def test_grey_backbones_are_refused():
    grey = Trained(
        model=network("torchvision:resnet18", 1), name="torchvision:resnet18", classes=("a", "b", "c"),
        image_shape=(1, 32, 32), mean=(0.5,), std=(0.5,), how={},
    )  # fmt: skip
    with pytest.raises(LocalLearnError, match="trained on images of 1 channels; a detector's have 3"):
        mask_rcnn(grey, categories=2)

"""Detection runs: fine-tuning, evaluation, resuming, mistakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import StopAfter, settings, timeless
from tiny_coco import tiny_coco

import locallearn as ll
from locallearn import LocalLearnError
from locallearn.cli.main import main
from locallearn.detection import DetectSettings, detect, mask_rcnn
from locallearn.export import export_run
from locallearn.training import SGD, Interrupted, RunFolder, load_checkpoint, load_run, train

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
SMALL = {"epochs": 2, "batch": 2, "max_size": 64, "channels": 16, "regions": 8, "proposals": 5, "workers": 0}
STEPS = 3  # in an epoch of five images


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of a local rule."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(settings(model="small_runs.four_stages", image_size=64, train_images=32, epochs=1, rule=ll.Pooling()), folder)
    return folder


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    return tiny_coco(tmp_path_factory.mktemp("coco") / "set")


def asked(trained: Path, coco: Path, **changes: Any) -> DetectSettings:
    return DetectSettings(**({"source": trained, "coco": coco, "optimizer": SGD(lr=0.01)} | SMALL | changes))


@pytest.fixture(scope="module")
def whole(trained, coco, tmp_path_factory) -> Path:
    """A detection run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    detect(asked(trained, coco), folder, trust_code=True)
    return folder


def test_a_run_is_fine_tuned_and_evaluated(trained, whole):
    rows = RunFolder(whole).rows()
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["train_loss"] < rows[0]["train_loss"]
    assert set(rows[0]["losses"]) == {
        *("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"),
    }
    assert rows[0]["train_loss"] == pytest.approx(sum(rows[0]["losses"].values()))
    result = json.loads((whole / "result.json").read_text())
    assert result["backbone"]["model"] == "small_runs.four_stages"
    assert result["backbone"]["test_accuracy"] == RunFolder(trained).rows()[-1]["test_accuracy"]
    assert all(0 <= result[f"{kind}_{name}"] <= 1 for kind in ("box", "mask") for name in ("ap", "ap50", "ap75"))
    names = {path.name.split(".")[0] for path in whole.iterdir()}
    assert names == {"", "settings", "environment", "metrics", "events", "last", "result"}


def test_a_run_is_one_command_and_its_folder_tells_the_command_that_repeats_it(trained, coco, whole, tmp_path, capsys):
    small = [f"--{name.replace('_', '-')}={value}" for name, value in (SMALL | {"epochs": 1}).items()]
    given = [
        "detect",
        str(trained),
        "--coco",
        str(coco),
        "--trust-code",
        *small,
        "--optimizer=sgd",
        "--optimizer.lr=0.01",
    ]
    assert main([*given, "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "run" / "result.json").read_text())
    assert timeless(tmp_path / "run") == timeless(whole)[:1]  # the learning rate of the first epoch is the same
    repeat = json.loads((tmp_path / "run" / "environment.json").read_text())["repeat"].split()
    assert main([*repeat[1:-1], str(tmp_path / "again")]) == 0
    assert "masks" in capsys.readouterr().out
    assert timeless(tmp_path / "again") == timeless(tmp_path / "run")


@pytest.mark.parametrize("stop", [STEPS - 1, STEPS, STEPS + 1])
def test_a_run_stopped_at_any_step_goes_on_as_if_it_had_not(trained, coco, whole, tmp_path, capsys, stop):
    with pytest.raises(Interrupted):
        detect(asked(trained, coco), tmp_path / "run", watcher=StopAfter(stop), trust_code=True)
    assert len(timeless(tmp_path / "run")) == (stop > STEPS)
    assert main(["detect", "--resume", str(tmp_path / "run"), "--trust-code", "--json"]) == 0
    mask_ap = json.loads((whole / "result.json").read_text())["mask_ap"]
    assert json.loads(capsys.readouterr().out)["mask_ap"] == mask_ap
    assert timeless(tmp_path / "run") == timeless(whole)


def test_resuming_with_other_settings_is_refused(trained, coco, whole):
    with pytest.raises(LocalLearnError, match="a run with other settings"):
        detect(asked(trained, coco, epochs=3), whole, resume="last", trust_code=True)


def test_the_number_of_workers_and_an_exported_backbone_change_no_bit(trained, coco, whole, tmp_path):
    backbone = export_run(trained, tmp_path / "export", trust_code=True).parent
    detect(asked(backbone, coco, workers=1), tmp_path / "run", trust_code=True)
    assert timeless(tmp_path / "run") == timeless(whole)


def test_the_backbone_in_the_detector_is_the_trained_one(trained):
    state = load_run(trained, trust_code=True).model.state_dict()
    detector = mask_rcnn(load_run(trained, trust_code=True), DetectSettings(channels=8), categories=2)
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
        detect(asked(trained, coco, optimizer=SGD(lr=1e30)), tmp_path / "run", trust_code=True)
    last = load_checkpoint(tmp_path / "run" / "last.pt")
    assert (last["epoch"], last["step"]) == (1, 0)


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
    assert f"leave out {trained}." in capsys.readouterr().err
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

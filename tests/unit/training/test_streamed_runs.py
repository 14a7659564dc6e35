"""Runs on images in files: stopped anywhere and resumed, with bad images, from folders and from shards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import StopAfter, assert_equal_runs, little, settings, timeless
from tiny_images import BAD, CLASSES, shards_from, tree

import locallearn as ll
from locallearn import LocalLearnError
from locallearn.cli.main import main
from locallearn.data import ImageSet, image_folder
from locallearn.training import Interrupted, TrainSettings, data_of, train

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
SUPPORT = Path(__file__).parents[2] / "support"


def asked(folder: Path, **changes) -> TrainSettings:
    return settings(**({"data": str(folder), "image_size": 16, "batch": 7, "epochs": 2, "workers": 1} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tree(tmp_path_factory.mktemp("images") / "set")


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory) -> Path:
    return tree(tmp_path_factory.mktemp("images") / "spoiled", bad=tuple(BAD))


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(asked(folder), run)
    return run


@pytest.mark.parametrize("stop", [1, 4, 6])  # 4 steps an epoch
def test_stopping_at_any_step_and_resuming_changes_no_bit(folder, whole, tmp_path, stop):
    with pytest.raises(Interrupted):
        train(asked(folder), tmp_path / "parts", watcher=StopAfter(stop))
    torch.rand(3)
    train(asked(folder), tmp_path / "parts", resume="last")
    assert_equal_runs(whole, tmp_path / "parts")


@pytest.mark.parametrize("workers", [0, 3])
def test_the_number_of_workers_changes_no_bit(folder, whole, tmp_path, workers):
    train(asked(folder, workers=workers), tmp_path / "other")
    assert_equal_runs(whole, tmp_path / "other")


def test_shards_and_folders_give_the_same_run(folder, whole, tmp_path):
    train(asked(shards_from(folder, tmp_path / "shards")), tmp_path / "other")
    assert_equal_runs(whole, tmp_path / "other")


def test_the_loss_falls(folder, tmp_path):
    train(asked(folder, epochs=12, workers=0), tmp_path / "run")
    rows = timeless(tmp_path / "run")
    assert rows[-1]["train_loss"] < 0.75 * rows[0]["train_loss"]
    assert "skipped_images" not in rows[0]


def test_a_bad_image_stops_the_run_with_its_path(spoiled, tmp_path):
    with pytest.raises(LocalLearnError, match=rf"{spoiled}/train/ant/\w+.jpg \(.*is no readable image"):
        train(asked(spoiled), tmp_path / "run")


def test_skipped_images_are_counted_in_each_epoch_over_a_resume_too(spoiled, tmp_path):
    skipping = asked(spoiled, bad_images="skip")
    train(skipping, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(skipping, tmp_path / "parts", watcher=StopAfter(3))
    train(skipping, tmp_path / "parts", resume="last")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    for row in timeless(tmp_path / "parts"):
        assert sorted(Path(name.partition(" (")[0]).name for name in row["skipped_images"]) == sorted(BAD)


def test_skipped_images_are_told_after_each_epoch(spoiled, tmp_path, capsys):
    arguments = f"train --data {spoiled} --image-size 16 --model small_runs.little --batch 7 --epochs 2 --workers 0"
    options = ["--rule", "bp", "--out", str(tmp_path / "run"), "--bad-images", "skip"]
    assert main([*arguments.split(), *options]) == 0
    told = capsys.readouterr().err
    assert told.count("skipped 3 bad images: ") == 2
    assert f"{spoiled}/train/ant/empty.jpg (ValueError: none of JPEG" in told


def test_a_bad_test_image_is_counted_too(tmp_path):
    folder = tree(tmp_path / "set")
    (folder / "val" / "cow" / "003.jpg").write_bytes(b"")
    train(asked(folder, epochs=1, bad_images="skip", rule=ll.BP()), tmp_path / "run")
    (name,) = timeless(tmp_path / "run")[0]["skipped_images"]
    assert name.startswith(str(folder / "val" / "cow" / "003.jpg"))
    assert timeless(tmp_path / "run")[0]["test_accuracy"] * 11 == pytest.approx(
        round(timeless(tmp_path / "run")[0]["test_accuracy"] * 11)
    )


def test_ctrl_c_reaches_workers_too_and_the_run_is_resumed(folder, tmp_path):
    command = [sys.executable, "-m", "locallearn", "train", "--data", str(folder), "--image-size", "16"]
    options = "--model small_runs.little --batch 2 --epochs 300 --rule bp --workers 2 --threads 1"
    process = subprocess.Popen(
        [*command, *options.split(), "--out", str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(SUPPORT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    while "epoch" not in line and process.poll() is None:
        line = process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.count("stopping after this step") == 1
    assert "continue with: locallearn train --resume" in told
    assert "Traceback" not in told


def test_a_path_is_told_from_a_name(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for name in ("set", "./set", str(folder)):
        assert data_of(asked(folder, data=name)).classes == CLASSES
    with pytest.raises(LocalLearnError, match="there is no folder elsewhere/set for a data set"):
        data_of(asked(folder, data="elsewhere/set"))
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(data_of(settings(data="digits")), ImageSet)


def test_images_in_memory_are_resized_with_antialiasing():
    data = data_of(settings(image_size=6))
    assert data.image_shape == (3, 6, 6)
    assert isinstance(data, ImageSet)
    full = data_of(settings())
    assert isinstance(full, ImageSet)
    # halving by a triangle four pixels wide: weights 1, 3, 3, 1
    rows = np.pad(full.test.images.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    weights = np.array([1, 3, 3, 1]) / 8
    pairs = [(a * b, i, j) for i, a in enumerate(weights) for j, b in enumerate(weights)]
    halved = np.sum([weight * rows[:, i : i + 12 : 2, j : j + 12 : 2] for weight, i, j in pairs], axis=0)
    difference = data.test.images[:, 1:-1, 1:-1].astype(float) - halved[:, 1:-1, 1:-1]
    assert np.abs(difference).max() <= 0.5 + 1e-4
    assert full.resized(12) is full


def test_wrong_settings_are_refused(folder, tmp_path):
    for changes, told in (
        ({"image_size": 0}, "image_size=0 must be at least 1"),
        ({"workers": -1}, "workers=-1 must not be negative"),
        ({"bad_images": "ignore"}, "bad_images='ignore' is not valid"),
    ):
        with pytest.raises(LocalLearnError, match=told):
            asked(folder, **changes)


def test_a_little_network_takes_the_images(folder):
    assert little(3, 3)(torch.zeros(2, *image_folder(folder).resized(16).image_shape)).shape == (2, 3)

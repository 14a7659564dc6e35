"""A small data set, networks and settings that train in a second."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import locallearn as ll
from locallearn.data import Augmentation, Border, Feed, ImageSet, Split, TensorBatches
from locallearn.training import SGD, Fit, RunFolder, TrainSettings, Watcher, build, data_of, load_checkpoint
from locallearn.training.from_settings import training_batches, with_mixing

PAUSE = float(os.environ.get("SMALL_RUNS_PAUSE", "0"))
"""Seconds before each batch of training: a run that a test means to stop must not end before the test gets to it."""


class SlowBatches(TensorBatches):
    """Batches that come after a pause."""

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().epoch(epoch, start=start):
            time.sleep(PAUSE)
            yield batch


class SlowSet(ImageSet):
    """Images of which the training batches come slowly."""

    def training(self, feed: Feed, *, seed: int, drop_single: bool) -> TensorBatches:
        batches = super().training(feed, seed=seed, drop_single=drop_single)
        return SlowBatches(**{field.name: getattr(batches, field.name) for field in fields(batches)})


def stripes(root: Path) -> ImageSet:
    """100 training and 40 test images of 12 x 12 pixels, three classes told apart by the direction of their stripes."""
    draw = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = draw.integers(0, 3, count)
        rows, columns = np.mgrid[:12, :12]
        patterns = np.stack([rows % 4 < 2, columns % 4 < 2, (rows + columns) % 4 < 2]) * 160
        images = patterns[labels][..., None] + draw.integers(0, 90, (count, 12, 12, 3))
        return Split(images=images.astype(np.uint8), labels=labels.astype(np.int64))

    return (SlowSet if PAUSE else ImageSet)(
        train=split(100),
        test=split(40),
        classes=("rows", "columns", "diagonals"),
        mean=(120.0,) * 3,
        std=(80.0,) * 3,
        augmentation=Augmentation(pad=1, border=Border.REFLECT, flip=True),
    )


def many_classes(root: Path) -> ImageSet:
    """The stripes under 120 names."""
    return replace(stripes(root), classes=tuple(f"class {number}" for number in range(120)))


def several_labels(root: Path) -> ImageSet:
    """The stripes; those that are not diagonal have a second label."""
    data = stripes(root)

    def with_vectors(split: Split) -> Split:
        vectors = np.eye(3, dtype=np.float32)[split.labels]
        vectors[split.labels < 2, 2] = 1
        return Split(images=split.images, labels=vectors)

    return replace(data, train=with_vectors(data.train), test=with_vectors(data.test))


def square(logits, labels):
    """A loss of a user's own, of labels as vectors."""
    return ((logits.sigmoid() - labels) ** 2).mean() / 2


def little(num_classes: int, in_channels: int) -> nn.Sequential:
    """Three layers, with dropout, so that random numbers matter."""
    parts: list[nn.Module] = []
    for before, after in ((in_channels, 8), (8, 8), (8, 16)):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))


def plain(num_classes: int, in_channels: int) -> nn.Sequential:
    """The three layers without dropout."""
    return nn.Sequential(*(part for part in little(num_classes, in_channels) if not isinstance(part, nn.Dropout)))


def four_stages(num_classes: int, in_channels: int) -> nn.Sequential:
    """Four layers of strides 4, 8, 16 and 32, as a detector needs them."""
    parts: list[nn.Module] = []
    for before, after, stride in ((in_channels, 8, 4), (8, 8, 2), (8, 16, 2), (16, 16, 2)):
        parts += [nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))


def settings(**changes) -> TrainSettings:
    values = {
        "model": "small_runs.little",
        "data": "small_runs.stripes",
        "rule": ll.DGL(hidden=1),
        "epochs": 3,
        "batch": 32,
        "optimizer": SGD(lr=0.05),
    }
    return TrainSettings(**(values | changes))


@cache
def _built() -> tuple[ll.LocalNet, Tensor]:
    """The network, and the random state after it was built."""
    return build(settings(), data_of(settings())), torch.get_rng_state()


def loop_of(asked: TrainSettings, folder: Path, watcher: Watcher | None = None) -> Fit:
    """The loop that `train` would run, for settings with the default network and rule: built once, then copied."""
    folder.mkdir(exist_ok=True)
    net, random = _built()
    torch.set_rng_state(random)
    images, feed = stripes(folder), asked.feed(torch.device("cpu"))
    train = training_batches(asked, images, feed, drop_single=False)
    train, test = with_mixing(asked, train, feed, classes=3), images.testing(feed)
    return Fit(copy.deepcopy(net), train, test, asked, folder=RunFolder(folder), watcher=watcher)


def timeless(folder: Path) -> list[dict]:
    """Rows of metrics without their durations."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


class StopAfter(Watcher):
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


def final(folder) -> dict:
    state = load_checkpoint(folder / "last.pt")
    progress = {name: state[name] for name in ("epoch", "step", "best")}
    return {f"{part}.{k}": v for part in ("net", "average") for k, v in state[part].items()} | progress


def assert_equal_runs(one, other) -> None:
    assert timeless(one) == timeless(other)
    first, second = final(one), final(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(second[name])), name

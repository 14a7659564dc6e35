"""Training images, their targets and their flips; images that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_coco import tiny_coco

from locallearn import LocalLearnError
from locallearn.detection.coco import Coco
from locallearn.detection.loading import TrainingBatches, evaluation_images

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    return tiny_coco(tmp_path_factory.mktemp("coco") / "set")


def test_targets_are_single_objects_and_flips_mirror_them(coco):
    images = TrainingBatches(Coco(coco, "train2017"), batch=1, seed=0, workers=0)
    assert images.ids == [1, 2, 3, 4, 5]  # the sixth has no objects
    seen: set[bool] = set()
    for epoch in range(1, 9):
        image, target = images.item((0, epoch))
        assert image.shape == (3, 64, 72)
        assert len(target["boxes"]) == 2  # and a crowd, which does not count
        assert set(target["labels"].tolist()) <= {1, 2}
        for box, mask, label in zip(target["boxes"], target["masks"], target["labels"], strict=True):
            ys, xs = mask.nonzero(as_tuple=True)
            around = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
            assert (around - box).abs().max() <= 1
            colour = image[:, mask.bool()].mean(1)
            assert colour.argmax() == (0 if label == 1 else 2)  # squares are red, triangles blue
        again, _ = images.item((0, epoch))
        assert torch.equal(again, image)
        seen.add(torch.equal(image, images.coco.image(1)))
    assert seen == {True, False}


def test_an_epoch_is_read_from_any_batch_on(coco):
    batches = TrainingBatches(Coco(coco, "train2017"), batch=2, seed=0, workers=0)
    whole = list(batches.epoch(3))
    assert [len(targets) for _, targets in whole] == [2, 2, 1]
    for start in range(len(batches) + 1):
        rest = list(batches.epoch(3, start=start))
        assert len(rest) == len(whole) - start
        for (images, _), (expected, _) in zip(rest, whole[start:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(images, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_an_image_that_cannot_be_read_is_named(tmp_path, split, workers):
    broken = tiny_coco(tmp_path / "broken", images=2)
    (broken / split / "000000000001.png").write_bytes(b"no image")
    coco = Coco(broken, split)
    training = TrainingBatches(coco, batch=2, seed=0, workers=workers).epoch(1)
    with pytest.raises(LocalLearnError, match=rf"^\S+{split}/000000000001.png cannot be read: cannot identify"):
        list(training if split == "train2017" else evaluation_images(coco, workers=workers))

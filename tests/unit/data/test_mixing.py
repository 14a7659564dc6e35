"""RandAugment, mixup and CutMix of images in memory: the formulas, and the same images whoever reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from locallearn import LocalLearnError
from locallearn.data import Augmentation, Feed, ImageSet, MixedBatches, Split

CLASSES = 4


def image_set(count: int = 21, channels: int = 3) -> ImageSet:
    draw = np.random.default_rng(1)
    split = Split(
        images=draw.integers(0, 256, (count, 9, 7, channels)).astype(np.uint8), labels=np.arange(count) % CLASSES
    )
    values = (120.0,) * channels
    augmentation = Augmentation(pad=2, flip=True)
    return ImageSet(train=split, test=split, classes=tuple("abcd"), mean=values, std=values, augmentation=augmentation)


DATA = image_set()


def plain(**feed):
    return DATA.training(Feed(batch=8, **feed), seed=0, drop_single=False)


def mixed(*, mixup: float = 0.0, cutmix: float = 0.0, **feed) -> MixedBatches:
    ahead = feed.get("ahead", False)
    return MixedBatches(batches=plain(**feed), mixup=mixup, cutmix=cutmix, classes=CLASSES, seed=0, ahead=ahead)


def test_mixup_is_its_formula():
    for (images, labels), (x, y) in zip(mixed(mixup=1.0).epoch(1), plain().epoch(1), strict=True):
        one_hot = F.one_hot(y, CLASSES).float()
        place = int((y != y.roll(1)).nonzero()[0])
        share = labels[place, y[place]]
        assert torch.allclose(labels, share * one_hot + (1 - share) * one_hot.roll(1, 0))
        assert torch.allclose(images, share * x + (1 - share) * x.roll(1, 0), atol=1e-5)
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_cutmix_is_a_box_of_the_image_before():
    for (images, labels), (x, y) in zip(mixed(cutmix=1.0).epoch(1), plain().epoch(1), strict=True):
        before = (images == x.roll(1, 0)).all(1)
        own = (images == x).all(1)
        assert (before | own).all()
        one_hot = F.one_hot(y, CLASSES).float()
        share = own.all(0).float().mean()
        assert torch.allclose(labels, share * one_hot + (1 - share) * one_hot.roll(1, 0), atol=1e-6)
        rows, columns = (~own).any(0).nonzero(as_tuple=True)
        if len(rows):
            assert (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) == len(rows)


KINDS = {"mixup": {"mixup": 0.2}, "both, with RandAugment": {"mixup": 0.2, "cutmix": 1.0, "rand_augment": (2, 9)}}


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_the_same_from_any_start_and_in_any_number_of_parts(kind):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    whole = list(mixed(**KINDS[kind]).epoch(2))
    assert torch.equal(torch.rand(1), expected), "the global random state is not touched"
    for start in (1, 2):
        for batch, again in zip(whole[start:], mixed(**KINDS[kind]).epoch(2, start=start), strict=True):
            assert all(map(torch.equal, batch, again))
    cut = [mixed(**KINDS[kind], part=part, parts=3, ahead=True).epoch(2) for part in range(3)]
    for batch, *parts in zip(whole, *cut, strict=True):
        for tensor, *tensors in zip(batch, *parts, strict=True):
            assert torch.equal(tensor, torch.cat(tensors))


def test_with_both_each_batch_has_one_of_them():
    batches = DATA.training(Feed(batch=3), seed=0, drop_single=False)
    both = MixedBatches(batches=batches, mixup=1.0, cutmix=1.0, classes=CLASSES, seed=0, ahead=False)
    pairs = zip(both.epoch(1), batches.epoch(1), strict=True)
    is_cut = [bool(((images == x) | (images == x.roll(1, 0))).all()) for (images, _), (x, _) in pairs]
    assert set(is_cut) == {True, False}


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_is_torchvisions_and_changes_most_images(channels):
    data = image_set(channels=channels)
    made = [
        next(data.training(Feed(batch=21, rand_augment=how), seed=0, drop_single=False).epoch(1))
        for how in (None, (2, 9), (2, 9))
    ]
    (x, y), (u, v), (again, _) = made
    assert torch.equal(y, v)
    assert torch.equal(u, again)
    assert (u != x).flatten(1).any(1).float().mean() > 0.5


@pytest.mark.parametrize("wrong", [(2,), (0, 9), (2, 31)])
def test_a_rand_augment_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(LocalLearnError, match="give how many operations, at least 1, and"):
        Feed(batch=8, rand_augment=wrong)


def test_rand_augment_of_two_channels_is_refused():
    with pytest.raises(LocalLearnError, match="takes images of 1 or 3 channels, not 2"):
        image_set(channels=2).training(Feed(batch=8, rand_augment=(2, 9)), seed=0, drop_single=False)

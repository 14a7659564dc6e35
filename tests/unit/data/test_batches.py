"""Augmentation against a plain loop over images, and the order of batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from locallearn import LocalLearnError
from locallearn.data import Augmentation, Border, Feed, ImageSet, LoaderBatches, Split, TensorBatches
from locallearn.data.augmentation import augment, normalise


def images(count: int = 21, height: int = 9, width: int = 7) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def image_set(count: int = 21) -> ImageSet:
    split = Split(images=images(count), labels=np.arange(count) % 4)
    return ImageSet(
        train=split,
        test=split,
        classes=tuple("abcd"),
        mean=(100.0, 110.0, 120.0),
        std=(50.0, 60.0, 70.0),
        augmentation=Augmentation(pad=2, border=Border.REFLECT, flip=True),
    )


def batches(count: int = 21, *, augmentation: Augmentation | None = None, **order) -> TensorBatches:
    data = image_set(count)
    data = replace(data, augmentation=augmentation or data.augmentation)
    return data.training(Feed(batch=8), **({"seed": 0, "drop_single": False} | order))


@pytest.mark.parametrize(("border", "mode"), [(Border.ZERO, "constant"), (Border.REFLECT, "reflect")])
@pytest.mark.parametrize("flip", [False, True])
def test_each_image_is_some_crop_of_the_padded_image_and_all_crops_and_flips_occur(border, mode, flip):
    pad, originals = 2, images(600)
    augmented = augment(
        torch.from_numpy(originals), Augmentation(pad=pad, border=border, flip=flip), torch.Generator().manual_seed(0)
    )
    seen = set()
    for original, result in zip(originals, augmented.numpy(), strict=True):
        padded = np.pad(original, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
        crops = {
            (y, x, mirrored): padded[y : y + 9, x : x + 7][:, :: -1 if mirrored else 1]
            for y in range(2 * pad + 1)
            for x in range(2 * pad + 1)
            for mirrored in ((False, True) if flip else (False,))
        }
        found = [key for key, crop in crops.items() if np.array_equal(crop, result)]
        assert found, "every image must be one of its crops"
        seen.update(found[:1])
    assert len(seen) == 25 * (1 + flip)


def test_without_padding_and_flip_images_stay_as_they_are():
    originals = torch.from_numpy(images())
    assert torch.equal(augment(originals, Augmentation(), torch.Generator()), originals)


@pytest.mark.parametrize("channels_last", [True, False])
def test_normalisation_is_by_channel_in_pixel_values(channels_last):
    pixels = images()
    result = normalise(torch.from_numpy(pixels), (100, 110, 120), (50, 60, 70), channels_last=channels_last)
    expected = ((pixels - np.array([100, 110, 120])) / np.array([50, 60, 70])).transpose(0, 3, 1, 2)
    assert torch.allclose(result, torch.from_numpy(expected).float(), atol=1e-6)
    assert result.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own():
    data = batches(augmentation=Augmentation())
    epochs = [[x.sum((1, 2, 3)) for x, _ in data.epoch(epoch)] for epoch in (1, 2)]
    assert [len(x) for x in epochs[0]] == [8, 8, 5]
    first, second = (torch.cat(epoch) for epoch in epochs)
    assert not torch.equal(first, second)
    assert torch.allclose(first.sort().values, second.sort().values)


def test_an_epoch_is_the_same_whenever_it_is_asked_and_from_any_start():
    whole = list(batches().epoch(3))
    torch.rand(5)
    for start in range(4):
        rest = list(batches().epoch(3, start=start))
        assert len(rest) == 3 - start
        for (x, y), (u, v) in zip(whole[start:], rest, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)


def test_another_seed_is_another_order_and_the_global_random_state_is_not_touched():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, other = next(batches(seed=0).epoch(1)), next(batches(seed=1).epoch(1))
    assert not torch.equal(first[1], other[1])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_the_parts_of_a_batch_are_the_whole_batch_with_its_augmentation(parts):
    data = image_set()
    feeds = [Feed(batch=8, part=part, parts=parts) for part in range(parts)]
    for made in (lambda feed: data.training(feed, seed=0, drop_single=False), data.testing):
        whole = list(made(Feed(batch=8)).epoch(2))
        cut = [list(made(feed).epoch(2)) for feed in feeds]
        assert [len(x) for x, _ in whole] in ([8, 8, 5], [21])
        for number, batch in enumerate(whole):
            own = [batches[number] for batches in cut]
            sizes = [len(y) for _, y in own]
            assert sizes == sorted(sizes, reverse=True)
            assert max(sizes) - min(sizes) <= 1
            for tensor, *tensors in zip(batch, *own, strict=True):
                assert torch.equal(tensor, torch.cat(tensors))
        assert len(made(feeds[0])) == len(whole)


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(LocalLearnError, match="part=2 must be at least 0 and below parts=2"):
        Feed(batch=8, part=2, parts=2)


def test_evaluation_keeps_order_and_images():
    data = image_set()
    x = torch.cat([x for x, _ in data.testing(Feed(batch=2)).epoch(1)])
    expected = normalise(torch.from_numpy(data.test.images), data.mean, data.std, channels_last=True)
    assert torch.equal(x, expected)


def test_a_single_image_left_over_can_be_left_out():
    assert [len(y) for _, y in batches(17).epoch(1)] == [8, 8, 1]
    assert [len(y) for _, y in batches(17, drop_single=True).epoch(1)] == [8, 8]
    assert len(batches(17, drop_single=True)) == 2


@pytest.mark.parametrize("own_generator", [False, True])
def test_a_users_loader_is_repeatable_and_can_start_anywhere(own_generator):
    dataset = TensorDataset(torch.arange(20.0)[:, None, None, None].expand(20, 3, 4, 4), torch.arange(20) % 4)
    generator = torch.Generator() if own_generator else None
    loader = DataLoader(dataset, batch_size=6, shuffle=True, generator=generator)
    data = LoaderBatches(loader, seed=5)
    assert len(data) == 4
    whole = [x[:, 0, 0, 0] for x, _ in data.epoch(2)]
    torch.rand(3)
    rest = [x[:, 0, 0, 0] for x, _ in data.epoch(2, start=2)]
    assert all(torch.equal(x, y) for x, y in zip(whole[2:], rest, strict=True))
    assert not torch.equal(whole[0], next(data.epoch(3))[0][:, 0, 0, 0])


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"images": images() / np.float32(255)}, "type float32: give pixels from 0 to"),
        ({"images": images().reshape(21, -1)}, "in the order"),
        ({"images": images().tolist()}, "images are a list: give a NumPy array"),
        ({"images": images(30)}, "has 30 images and labels of shape"),
        ({"labels": np.arange(25) % 4}, "has 21 images and labels of shape"),
    ],
)
def test_a_split_that_is_no_array_of_images_and_labels_is_refused(split, message):
    data = image_set()
    for name in ("train", "test"):
        with pytest.raises(LocalLearnError, match=message):
            replace(data, **{name: replace(data.train, **split)})


def test_other_sizes_and_constants_are_refused():
    data = image_set()
    with pytest.raises(LocalLearnError, match=r"training images are \(9, 7, 3\), and test images \(9, 8, 3\)"):
        replace(data, test=Split(images=images(width=8), labels=data.test.labels))
    for wrong in ({"mean": (1.0,)}, {"std": (1.0,)}, {"std": (1.0, 0.0, 1.0)}):
        with pytest.raises(LocalLearnError, match="give a number for each of 3 channels, and std above 0"):
            replace(data, **wrong)

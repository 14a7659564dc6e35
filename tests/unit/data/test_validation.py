"""Validation images: drawn from every class, by the seed, and in no part of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import stripes

from locallearn import LocalLearnError
from locallearn.data import FileSet, ImageFiles, hold_out


def held_and_left(amount: float, seed: int = 0):
    images = stripes(Path())
    rest, held = hold_out(images, amount, seed=seed)
    assert held.train is images.train
    assert rest.test is images.test
    return held.test, rest.train


@pytest.mark.parametrize(("amount", "count"), [(0.1, 10), (0.25, 25), (30, 30), (3, 3)])
def test_every_class_has_its_share_of_the_images(amount, count):
    held, left = held_and_left(amount)
    whole = stripes(Path()).train
    assert (len(held), len(left)) == (count, len(whole) - count)
    sizes, counts = (np.bincount(split.labels, minlength=3) for split in (whole, held))
    assert np.abs(counts - count * sizes / len(whole)).max() < 1
    together = np.concatenate([held.images, left.images]).reshape(len(whole), -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, whole.images.reshape(len(whole), -1)))


def test_the_draw_depends_on_the_seed_alone():
    (one, _), (again, _), (other, _) = (held_and_left(0.2, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.images, again.images)
    assert not np.array_equal(one.images, other.images)


def test_images_in_files_are_held_out_too():
    labels = [0] * 6 + [1] * 4
    files = ImageFiles.of(Path(), [f"{number}.png" for number in range(10)], labels)
    rest, held = hold_out(FileSet(train=files, test=files, classes=("a", "b")), 5, seed=0)
    assert np.bincount(held.test.labels).tolist() == [3, 2]
    names = [part.name(number) for part in (held.test, rest.train) for number in range(5)]
    assert sorted(names) == sorted(map(files.name, range(10)))


@pytest.mark.parametrize("amount", [2, 0.02, 98, 1000])
def test_a_class_that_one_part_would_lack_is_refused(amount):
    with pytest.raises(LocalLearnError, match=r"holds out .* of 100 training images, .* so that each class has images"):
        hold_out(stripes(Path()), amount, seed=0)


def test_a_data_set_of_another_class_is_refused():
    class Own:
        """A user's own data set."""

    with pytest.raises(LocalLearnError, match=r"validation=0\.1 cannot cut the training images of a Own"):
        hold_out(Own(), 0.1, seed=0)  # pyright: ignore[reportArgumentType]


def test_a_class_without_images_needs_none():
    images = replace(stripes(Path()), classes=("rows", "columns", "diagonals", "none"))
    assert len(hold_out(images, 0.1, seed=0)[1].test) == 10

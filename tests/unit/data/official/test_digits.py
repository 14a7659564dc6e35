from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from locallearn import LocalLearnError
from locallearn.data import Augmentation, Border, digits
from locallearn.data.published_set import fingerprint

NOWHERE = Path("nowhere")


def test_has_sizes_types_and_classes():
    data = digits(NOWHERE)
    assert (data.train.images.shape, data.test.images.shape) == ((1438, 16, 16, 3), (359, 16, 16, 3))
    assert (data.train.images.dtype, data.train.labels.dtype) == (np.uint8, np.int64)
    assert data.image_shape == (3, 16, 16)
    assert data.classes == tuple("0123456789")
    assert data.augmentation == Augmentation(pad=1, border=Border.ZERO, flip=False)


def test_every_fifth_bundled_image_is_for_testing():
    data, bundled = digits(NOWHERE), load_digits()
    order = [*(i for i in range(1797) if i % 5 != 4), *range(4, 1797, 5)]
    images = np.empty((1797, 16, 16, 3))
    images[order] = np.concatenate([data.train.images, data.test.images])
    assert np.array_equal(np.concatenate([data.train.labels, data.test.labels]), bundled.target[order])
    assert (images[..., 0] == images[..., 1]).all()
    assert (images[..., 0] == images[..., 2]).all()
    scaled = bundled.images * 255 / 16
    # The corner of a bilinear enlargement is the corner itself; two pixels in, it is a mean of four by 9, 3, 3 and 1.
    assert np.abs(images[:, 0, 0, 0] - scaled[:, 0, 0]).max() <= 0.5
    blend = (9 * scaled[:, 3, 3] + 3 * scaled[:, 3, 4] + 3 * scaled[:, 4, 3] + scaled[:, 4, 4]) / 16
    assert np.abs(images[:, 7, 7, 0] - blend).max() <= 0.5


def test_has_the_same_bytes_everywhere():
    images = digits(NOWHERE).train.images
    assert fingerprint(images) == "ac6309cb540ee3e3498d068288e99577d348d6b24742480f744817702d58e21a"


def test_mean_and_std_are_those_of_the_training_split():
    data = digits(NOWHERE)
    assert data.mean == pytest.approx([data.train.images.mean()] * 3, abs=0.05)
    assert data.std == pytest.approx([data.train.images.std()] * 3, abs=0.05)


def test_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "sklearn.datasets", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(LocalLearnError, match=r"sklearn.* is not installed: run pip install 'locallearn\[cli\]'"):
        digits(NOWHERE)

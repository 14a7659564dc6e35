"""SVHN's MATLAB files: zero is label 10, and no more is unpacked than fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from tiny_sets import SETS

from locallearn import LocalLearnError
from locallearn.data.official import svhn as svhn_module
from locallearn.data.official.svhn import SVHN


def test_ten_on_disk_is_zero(tmp_path):
    folder = SETS["svhn"].files(tmp_path)
    assert loadmat(folder / "train_32x32.mat")["y"].min() == 1
    assert SVHN.read(folder)[0].labels.tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize(
    "images", [np.zeros((32, 32, 3, 2)), np.zeros((16, 16, 3, 2), np.uint8), np.zeros((32, 32, 3, 6), np.uint8)]
)
def test_images_of_another_kind_are_refused_by_their_header(tmp_path, monkeypatch, images):
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": images, "y": np.ones((2, 1))}, do_compression=True)

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr("scipy.io.loadmat", never)
    monkeypatch.setattr(svhn_module, "SVHN", replace(SVHN, train=5))
    with pytest.raises(LocalLearnError, match=r"train_32x32.mat is garbled \(ValueError: its images are "):
        svhn_module._read(tmp_path)

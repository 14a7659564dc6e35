"""The npm package's mosaics become official batches."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from tiny_sets import SETS, batches, mosaics, same

from locallearn import LocalLearnError
from locallearn.data.official.cifar10_mosaics import MOSAICS
from locallearn.data.official.cifar_pickles import read_batch


@pytest.fixture
def folder(tmp_path):
    return mosaics(tmp_path, *SETS["cifar10"].splits())


def test_each_batch_has_its_images_and_labels(folder):
    MOSAICS.convert(folder)
    for name, split in batches(*SETS["cifar10"].splits()).items():
        assert same(read_batch(folder / name, "labels"), split)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data_batch_2.png", b"no image"),
        ("data_batch_2.png", b"\x89PNG\r\n\x1a\n cut off"),
        ("train_lables.json", b"[1, 2"),
        ("test_lables.json", json.dumps({"a": 1}).encode()),
        ("test_lables.json", b"\xff\xfe\xfd"),
    ],
)
def test_a_garbled_file_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(LocalLearnError, match=rf"^{name} is garbled \([^\n]+\)$"):
        MOSAICS.convert(folder)


@pytest.mark.parametrize("size", [(100, 3), (1024, 10_001)])
def test_a_mosaic_of_another_size_is_refused_before_it_is_unpacked(folder, size):
    Image.new("1", size).save(folder / "test_batch.png")
    with pytest.raises(LocalLearnError, match=rf"^test_batch.png is garbled \(.*{size[0]} x {size[1]} pixels"):
        MOSAICS.convert(folder)


def test_a_missing_file_is_named(folder):
    (folder / "test_lables.json").unlink()
    with pytest.raises(LocalLearnError, match=r"test_lables.json cannot be read"):
        MOSAICS.convert(folder)

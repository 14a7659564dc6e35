from __future__ import annotations

import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
import tiny_cifar10 as tiny
from PIL import Image

from locallearn import LocalLearnError
from locallearn.data import Augmentation, Border, cifar10
from locallearn.data.official import cifar10 as cifar10_module
from locallearn.data.official.cifar10 import read_cifar10
from locallearn.data.store import save


class Program:
    """Runs when a careless reader unpickles it."""

    def __reduce__(self):
        return os.mkdir, ("it_ran",)


def test_loads_from_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_module, "CIFAR10", tiny.KNOWN)
    save(tiny.KNOWN, tmp_path, tiny.TRAIN, tiny.TEST)
    data = cifar10(tmp_path)
    assert tiny.same((data.train, data.test))
    assert " ".join(data.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    assert (data.mean, data.std) == ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))
    assert data.augmentation == Augmentation(pad=4, border=Border.REFLECT, flip=True)


def test_missing_says_how_to_get_it(tmp_path):
    with pytest.raises(
        LocalLearnError, match=r"CIFAR-10 is not at .*cifar10: run locallearn data get cifar10.*--data-dir"
    ):
        cifar10(tmp_path)


def test_known_fingerprints_are_of_all_four_arrays():
    known = cifar10_module.CIFAR10
    assert set(known.sha256) == {"train_images", "train_labels", "test_images", "test_labels"}
    assert {len(digest) for digest in known.sha256.values()} == {64}
    assert known.size == 60_000 * (32 * 32 * 3 + 8) + 4 * 128


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_official_batches(tmp_path, protocol):
    assert tiny.same(read_cifar10(tiny.official(tmp_path, protocol=protocol), called="it"))


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_reads_batches_of_old_and_new_numpy(tmp_path, module):
    folder = tiny.official(tmp_path, numpy_module=module)
    assert b"c" + module + b".multiarray\n_reconstruct" in (folder / "test_batch").read_bytes()
    assert tiny.same(read_cifar10(folder, called="it"))


def test_reads_dtypes_as_python_2_wrote_them(tmp_path):
    # dtype('u1', 0, 1) and 8-bit texts
    folder = tiny.official(tmp_path)
    for name in tiny.BATCHES:
        content = (folder / name).read_bytes()
        old = content.replace(b"X\x02\x00\x00\x00u1", b"U\x02u1").replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
        assert old != content
        (folder / name).write_bytes(old)
    assert tiny.same(read_cifar10(folder, called="it"))


@pytest.mark.parametrize("build", [tiny.official, tiny.mosaics])
def test_reads_archive_folder_and_parent_alike(tmp_path, build):
    folder = build(tmp_path)
    for source in (folder, tmp_path, tiny.packed(folder, "archive.tar.gz")):
        assert tiny.same(read_cifar10(source, called="it"))


def test_extracts_nothing_to_disk(tmp_path, monkeypatch):
    archive = tiny.packed(tiny.official(tmp_path), "archive.tar.gz")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    read_cifar10(archive, called="it")
    assert os.listdir(elsewhere) == []


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_asks_for_a_program_is_not_obeyed(tmp_path, monkeypatch, protocol):
    folder = tiny.official(tmp_path)
    monkeypatch.chdir(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Program(), b"labels": []}, protocol))
    expected = r"^it has a garbled data_batch_3 \(UnpicklingError: it asks for posix.mkdir, .* was not obeyed\)\.$"
    with pytest.raises(LocalLearnError, match=expected):
        read_cifar10(folder, called="it")
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        pickle.dumps({b"labels": [1, 2]}),
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": b"pixels", b"labels": [1, 2]}),
        pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]}),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": ["one", "two"]}),
        pickle.dumps({b"data": np.full((2, 3072), b"", object), b"labels": [1, 2]}),
    ],
)
def test_a_garbled_batch_is_named(tmp_path, content):
    folder = tiny.official(tmp_path)
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(LocalLearnError, match=r"^it has a garbled test_batch \([^\n]+\)\.$"):
        read_cifar10(folder, called="it")


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
def test_a_garbled_part_of_the_npm_package_is_named(tmp_path, name, content):
    folder = tiny.mosaics(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(LocalLearnError, match=rf"^it has a garbled {name} \([^\n]+\)\.$"):
        read_cifar10(folder, called="it")


def test_a_mosaic_of_another_size_is_refused(tmp_path):
    folder = tiny.mosaics(tmp_path)
    Image.new("RGB", (100, 3)).save(folder / "test_batch.png")
    with pytest.raises(LocalLearnError, match=r"^it has a garbled test_batch\.png \(ValueError"):
        read_cifar10(folder, called="it")


def test_a_missing_batch_is_named(tmp_path):
    folder = tiny.official(tmp_path)
    (folder / "data_batch_4").unlink()
    with pytest.raises(LocalLearnError) as error:
        read_cifar10(folder, called="it")
    assert str(error.value) == "it is not CIFAR-10, or not all of it: it has no data_batch_4."


def test_missing_labels_are_named(tmp_path):
    folder = tiny.mosaics(tmp_path)
    (folder / "test_lables.json").unlink()
    with pytest.raises(LocalLearnError, match=r"it has no labels of test_batch\.$"):
        read_cifar10(folder, called="it")


def test_another_archive_is_refused(tmp_path):
    archive = tmp_path / "other.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("readme.txt"), io.BytesIO())
    with pytest.raises(LocalLearnError, match=r"^it is not CIFAR-10, or not all of it: it has no data_batch_1\.$"):
        read_cifar10(archive, called="it")


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9])
def test_a_truncated_archive_is_refused(tmp_path, kept):
    archive = tiny.packed(tiny.official(tmp_path), "archive.tar.gz")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(kept if kept in (0, 10) else kept * len(content))])
    with pytest.raises(LocalLearnError, match=r"^it is cut off or no tar archive \([^\n]+\)\.$"):
        read_cifar10(archive, called="it")


def test_a_missing_archive_is_told(tmp_path):
    with pytest.raises(LocalLearnError, match=r"^it does not exist\.$"):
        read_cifar10(tmp_path / "nothing.tar.gz", called="it")

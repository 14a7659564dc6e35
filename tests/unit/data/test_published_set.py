"""Official files are read in place: which folders, which images, and what is refused or warned of."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
from tiny_sets import SETS, TEST, TRAIN, Tiny, part, publish, same

from locallearn import LocalLearnError, LocalLearnWarning
from locallearn.data import Augmentation, Border, cifar10, cifar100, stl10, svhn
from locallearn.data.published_set import fingerprint

LOADERS = {"cifar10": cifar10, "cifar100": cifar100, "stl10": stl10, "svhn": svhn}


@pytest.fixture(params=SETS)
def name(request) -> str:
    return request.param


@pytest.fixture
def tiny(name) -> Tiny:
    return SETS[name]


@pytest.fixture
def folder(name, tiny, tmp_path, monkeypatch):
    """Official files in `tmp_path/NAME`, taken for the published ones."""
    folder = tiny.files(tmp_path / name if tiny.official.folder else tmp_path)
    publish(monkeypatch, tiny.known(folder))
    return folder


def refusal(name: str, root) -> str:
    with pytest.raises(LocalLearnError) as error:
        LOADERS[name](root)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("place", ["{name}/{folder}", "{name}", "{folder}"])
def test_official_files_are_read_where_they_lie(name, tiny, folder, tmp_path, place, recwarn):
    target = tmp_path / "root" / place.format(name=name, folder=tiny.official.folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(folder, target)
    before = {file: (target / file).stat() for file in tiny.official.files}
    data = LOADERS[name](tmp_path / "root")
    assert same(data.train, tiny.splits()[0])
    assert same(data.test, tiny.splits()[1])
    assert data.train.images.flags.c_contiguous
    assert {file: (target / file).stat() for file in tiny.official.files} == before
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "mean", "std", "augmentation"),
    [
        ("cifar10", (125.3, 123.0, 113.9), (63.0, 62.1, 66.7), Augmentation(pad=4, border=Border.REFLECT, flip=True)),
        ("cifar100", (129.3, 124.1, 112.4), (68.2, 65.4, 70.4), Augmentation(pad=4, border=Border.REFLECT, flip=True)),
        ("stl10", (127.5,) * 3, (127.5,) * 3, Augmentation(pad=4, border=Border.ZERO, flip=True)),
        ("svhn", (127.5,) * 3, (127.5,) * 3, Augmentation(pad=2, border=Border.ZERO, flip=False)),
    ],
)
def test_constants_are_those_of_the_official_code(name, folder, tmp_path, mean, std, augmentation):
    data = LOADERS[name](tmp_path)
    assert (data.mean, data.std, data.augmentation) == (mean, std, augmentation)
    assert len(data.classes) == len(set(data.classes)) == (100 if name == "cifar100" else 10)


def test_what_is_published_is_known():
    known = {name: tiny.official for name, tiny in SETS.items()}
    assert {name: (each.train, each.test, each.image) for name, each in known.items()} == {
        "cifar10": (50_000, 10_000, (32, 32, 3)),
        "cifar100": (50_000, 10_000, (32, 32, 3)),
        "stl10": (5_000, 8_000, (96, 96, 3)),
        "svhn": (73_257, 26_032, (32, 32, 3)),
    }
    assert [name for name, each in known.items() if each.package] == ["cifar10"]
    for each in known.values():
        assert len(each.sha256) == 4 or set(each.md5) == set(each.files)
        assert {len(digest) for digest in (*each.md5.values(), *each.urls.values())} == {32}
        assert each.largest_file > each.train * np.prod(each.image)


def test_a_missing_set_says_how_to_get_it(name, tiny, tmp_path):
    assert refusal(name, tmp_path) == (
        f"{tiny.official.title} is not at {tmp_path / name}: run locallearn data get {name} --data-dir {tmp_path},"
        " or give the folder that holds your data sets with --data-dir."
    )


def test_a_part_is_read_with_a_warning(name, tiny, folder, tmp_path):
    train, test = tiny.splits()
    tiny.write(folder, part(train, 6), part(test, 4))
    title = tiny.official.title
    told = f"{folder} holds 6 of {title}'s {TRAIN} training images and 4 of its {TEST} test images: figures are not"
    with pytest.warns(LocalLearnWarning) as warned:
        data = LOADERS[name](tmp_path)
    assert str(warned[0].message).startswith(told)
    assert same(data.train, part(train, 6))
    assert same(data.test, part(test, 4))


def test_other_images_are_never_taken_for_the_published_ones(name, tiny, folder, tmp_path):
    train, test = tiny.splits()
    tiny.write(folder, replace(train, images=train.images ^ 1), test)
    if name == "cifar10":
        assert "SHA-256 differs from the published images' for train_images; run locallearn" in refusal(name, tmp_path)
        return
    with pytest.warns(LocalLearnWarning, match=rf"not verified, for {tiny.official.files[0]} is not the published"):
        LOADERS[name](tmp_path)


def test_more_images_than_published_are_refused(name, tiny, folder, tmp_path, monkeypatch):
    publish(monkeypatch, replace(tiny.known(folder), test=TEST - 1))
    assert f"its test split has {TEST} labels and images of shape ({TEST}, " in refusal(name, tmp_path)


def test_labels_of_other_classes_are_refused(name, tiny, folder, tmp_path):
    train, test = tiny.splits()
    tiny.write(folder, train, replace(test, labels=test.labels + len(tiny.official.classes)))
    assert "the test split has labels from" in refusal(name, tmp_path)


def test_a_missing_file_is_named(name, tiny, folder, tmp_path):
    (folder / tiny.official.files[-1]).unlink()
    assert refusal(name, tmp_path) == (
        f"{folder} does not hold {tiny.official.title}: {tiny.official.files[-1]} cannot be read (No such file or"
        f" directory); run locallearn data get {name} --force --data-dir {tmp_path}"
    )


@pytest.mark.parametrize("content", [b"<html>", b"MATLAB 5.0 MAT-file" + bytes(200), pickle.dumps([1, 2])])
def test_a_garbled_file_is_named(name, tiny, folder, tmp_path, content):
    garbled = tiny.official.files[0]
    (folder / garbled).write_bytes(content)
    assert f"does not hold {tiny.official.title}: {garbled} is garbled (" in refusal(name, tmp_path)


@pytest.mark.parametrize("kind", ["FIFO", "device", "folder", "sparse"])
def test_what_is_no_file_of_a_fitting_size_is_refused_at_once(name, tiny, folder, tmp_path, kind):
    path = folder / tiny.official.files[0]
    path.unlink()
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(200 * 10**9)
    told = "has 200,000,000,000 bytes, more than" if kind == "sparse" else "is no regular file"
    assert f"{path.name} {told}" in refusal(name, tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_any_flipped_byte_of_the_images_is_noticed(name, tiny, folder, tmp_path):
    path = folder / tiny.official.files[0]
    content = path.read_bytes()
    for position in range(len(content) // 4, len(content) // 2, len(content) // 8):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises((LocalLearnError, LocalLearnWarning)):  # warnings are errors in tests
            LOADERS[name](tmp_path)


def test_a_fingerprint_tells_type_and_shape_but_not_memory_order():
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    others = [array.reshape(3, 2), array.view(np.uint64), array + 1]
    assert len({fingerprint(array), *map(fingerprint, others)}) == 4
    assert fingerprint(array) == fingerprint(np.asfortranarray(array))

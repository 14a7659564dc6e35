"""SVHN, STL-10 and CIFAR-100: from their official files to the data folder and back."""

from __future__ import annotations

import importlib
import io
import pickle
import shutil
import tarfile
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from tiny_cifar10 import packed, same
from tiny_sets import SETS, TEST, TRAIN

from locallearn import LocalLearnError, LocalLearnWarning
from locallearn.data import Augmentation, Border, ImageSet, cifar100, get, getting, stl10, svhn
from locallearn.data.download import Download
from locallearn.data.store import StoredSet

LOADERS = {"svhn": svhn, "stl10": stl10, "cifar100": cifar100}


@pytest.fixture(params=SETS)
def name(request) -> str:
    return request.param


@pytest.fixture
def folder(name, tmp_path, monkeypatch) -> Path:
    """Official files, taken for the published ones."""
    folder, known = SETS[name].official(tmp_path / "official")
    publish(monkeypatch, name, known)
    return folder


def publish(monkeypatch, name: str, known: StoredSet, **changes) -> None:
    monkeypatch.setitem(getting._DOWNLOADS, name, replace(getting._DOWNLOADS[name], stored=known, **changes))
    monkeypatch.setattr(importlib.import_module(f"locallearn.data._{name}"), name.upper(), known)


def fetched(name: str, root: Path, source: Path, **options) -> ImageSet:
    get(name, root, archive=source, report=lambda _: None, **options)
    return LOADERS[name](root)


def test_official_files_become_the_arrays_they_hold(name, folder, tmp_path):
    for number, source in enumerate((folder, packed(folder, "archive.tar.gz"), folder / SETS[name].files[0])):
        data = fetched(name, tmp_path / str(number), source)
        assert same((data.train, data.test), SETS[name].splits())
        assert data.train.images.flags.c_contiguous


def test_it_is_found_where_archives_are_unpacked(name, folder, tmp_path):
    inner = {"svhn": "svhn", "stl10": "stl10_binary", "cifar100": "cifar-100-python"}[name]
    (tmp_path / "unpacked").mkdir()
    shutil.move(folder, tmp_path / "unpacked" / inner)
    assert len(fetched(name, tmp_path / "root", tmp_path / "unpacked").train) == TRAIN


@pytest.mark.parametrize(
    ("name", "pixels", "augmentation", "classes"),
    [
        ("svhn", (127.5, 127.5), Augmentation(pad=2, border=Border.ZERO, flip=False), 10),
        ("stl10", (127.5, 127.5), Augmentation(pad=4, border=Border.ZERO, flip=True), 10),
        ("cifar100", (129.3, 68.2), Augmentation(pad=4, border=Border.REFLECT, flip=True), 100),
    ],
)
def test_constants_are_those_of_the_official_code(name, folder, pixels, augmentation, classes, tmp_path):
    data = fetched(name, tmp_path / "root", folder)
    assert (data.mean[0], data.std[0]) == pixels
    assert data.augmentation == augmentation
    assert len(data.classes) == len(set(data.classes)) == classes


def test_what_is_published_is_known():
    counts = {name: (tiny.stored.train, tiny.stored.test, tiny.stored.image) for name, tiny in SETS.items()}
    assert counts == {
        "svhn": (73_257, 26_032, (32, 32, 3)),
        "stl10": (5_000, 8_000, (96, 96, 3)),
        "cifar100": (50_000, 10_000, (32, 32, 3)),
    }
    for tiny in SETS.values():
        assert set(tiny.stored.md5) == set(tiny.files)
        assert {len(digest) for digest in tiny.stored.md5.values()} == {32}
        assert tiny.stored.size > (tiny.stored.train + tiny.stored.test) * (np.prod(tiny.stored.image) + 8)


def test_another_file_than_the_published_one_is_refused_and_named(name, folder, tmp_path):
    path = folder / SETS[name].files[-1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(LocalLearnError, match=f"does not hold {path.name} as published: its MD5 differs; --from takes"):
        fetched(name, tmp_path / "root", folder)
    assert not (tmp_path / "root").exists()


def test_a_missing_file_is_named(name, folder, tmp_path):
    gone = SETS[name].files[-1]
    (folder / gone).unlink()
    with pytest.raises(LocalLearnError, match=f"is not {SETS[name].stored.title}, or not all of it: it has no {gone};"):
        fetched(name, tmp_path / "root", folder)


@pytest.mark.parametrize("content", [b"", b"<html>", b"MATLAB 5.0 MAT-file" + bytes(200), pickle.dumps([1, 2])])
def test_a_garbled_file_is_named(name, folder, tmp_path, content):
    garbled = SETS[name].files[0]
    (folder / garbled).write_bytes(content if name != "stl10" else content + b"x")
    with pytest.raises(LocalLearnError, match=rf"has a garbled {garbled} \([^\n]+\); --from takes"):
        fetched(name, tmp_path / "root", folder, published=False)


def test_a_part_is_taken_only_unverified_and_every_use_says_so(name, folder, tmp_path):
    train, test = SETS[name].splits()
    part = replace(train, images=train.images[:6], labels=train.labels[:6])
    SETS[name].write(folder, part, test)
    with pytest.raises(LocalLearnError, match=r"as published.* and --unverified other images of that layout"):
        fetched(name, tmp_path / "root", folder)
    get(name, tmp_path / "root", archive=folder, published=False, report=lambda _: None)
    said = rf"holds 6 training and {TEST} test images that are not .* as published \({TRAIN} and {TEST}\)"
    with pytest.warns(LocalLearnWarning, match=said):
        data = LOADERS[name](tmp_path / "root")
    assert same((data.train, data.test), (part, test))


def test_the_published_set_replaces_an_unverified_one(name, folder, tmp_path, recwarn):
    get(name, tmp_path / "root", archive=folder, published=False, report=lambda _: None)
    lines: list[str] = []
    get(name, tmp_path / "root", archive=folder, report=lines.append)
    assert lines[0].startswith("replacing")
    LOADERS[name](tmp_path / "root")
    assert not recwarn.list
    get(name, tmp_path / "root", archive=folder, report=lines.append)
    assert lines[-1].endswith("already, and intact.")


def test_an_unverified_source_replaces_what_is_there_only_by_force(name, folder, tmp_path):
    fetched(name, tmp_path / "root", folder)
    _, test = SETS[name].splits()
    SETS[name].write(folder, test, test)
    lines: list[str] = []
    assert len(fetched(name, tmp_path / "root", folder, published=False).train) == TRAIN
    get(name, tmp_path / "root", archive=folder, published=False, report=lines.append)
    assert lines[0].endswith(f"is at {tmp_path / 'root' / name} already, and intact; --force replaces it.")
    get(name, tmp_path / "root", archive=folder, published=False, force=True, report=lines.append)
    assert lines[-1].endswith(f"{TEST} and {TEST} images, not verified.")


def test_unverified_needs_a_local_source(name, tmp_path):
    with pytest.raises(LocalLearnError, match="only a local archive or folder"):
        get(name, tmp_path, published=False, report=lambda _: None)


def test_another_number_of_images_is_refused_even_with_the_right_hash(name, folder, tmp_path, monkeypatch):
    publish(monkeypatch, name, replace(getting._DOWNLOADS[name].stored, train=TRAIN + 1))
    with pytest.raises(LocalLearnError, match=f"its training split has {TRAIN} images, not {TRAIN + 1}"):
        fetched(name, tmp_path / "root", folder)


def test_labels_out_of_range_are_refused(name, folder, tmp_path):
    train, test = SETS[name].splits()
    SETS[name].write(folder, train, replace(test, labels=test.labels + {"svhn": 11, "stl10": 5, "cifar100": 95}[name]))
    with pytest.raises(LocalLearnError, match="its test split has labels from"):
        fetched(name, tmp_path / "root", folder, published=False)


def test_one_flipped_byte_in_the_data_folder_is_noticed(name, folder, tmp_path):
    fetched(name, tmp_path / "root", folder)
    path = tmp_path / "root" / name / "train_images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(LocalLearnError, match=f"is damaged .*run locallearn data get {name} --force"):
        LOADERS[name](tmp_path / "root")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"published": true, "sha256": {}}', b"[1]"])
def test_a_damaged_record_is_noticed(name, folder, tmp_path, content):
    fetched(name, tmp_path / "root", folder)
    (tmp_path / "root" / name / "content.json").write_bytes(content)
    with pytest.raises(LocalLearnError, match=rf"content.json cannot be read .*run locallearn data get {name} --force"):
        LOADERS[name](tmp_path / "root")
    fetched(name, tmp_path / "root", folder)  # anew, without --force


def test_it_is_downloaded_from_its_host(name, folder, tmp_path, monkeypatch):
    source = [folder / file for file in SETS[name].files] if name == "svhn" else [packed(folder, "archive.tar.gz")]
    publish(monkeypatch, name, getting._DOWNLOADS[name].stored, urls=tuple(path.as_uri() for path in source))
    monkeypatch.setattr("locallearn.data.download.urlopen", urllib.request.urlopen)
    lines: list[str] = []
    get(name, tmp_path / "root", report=lines.append)
    assert len([line for line in lines if line.startswith("downloading")]) == len(source)
    assert len(LOADERS[name](tmp_path / "root").train) == TRAIN


def test_without_its_host_there_is_no_other_source_than_from(name, folder, tmp_path, monkeypatch):
    url = (tmp_path / "nowhere.tar.gz").as_uri()
    publish(monkeypatch, name, getting._DOWNLOADS[name].stored, urls=(url,))
    with pytest.raises(LocalLearnError, match=r"could not be downloaded \(.*nowhere.*give a local copy with --from"):
        get(name, tmp_path / "root", report=lambda _: None)


def test_unlabelled_images_behind_the_others_are_not_unpacked(tmp_path, monkeypatch):
    folder, known = SETS["stl10"].official(tmp_path / "stl10_binary")
    publish(monkeypatch, "stl10", known)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for file in SETS["stl10"].files:
            tar.add(folder / file, f"stl10_binary/{file}")
        tar.addfile(tarfile.TarInfo("stl10_binary/unlabeled_X.bin"), io.BytesIO())
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: whole.index(b"stl10_binary/unlabeled_X.bin") + 20])
    assert len(fetched("stl10", tmp_path / "root", tmp_path / "a.tar").train) == TRAIN


def test_images_that_are_not_bytes_are_refused(tmp_path):
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))})
    with pytest.raises(LocalLearnError, match=r"garbled .*_32x32.mat \(ValueError: its images are float64"):
        fetched("svhn", tmp_path / "root", tmp_path, published=False)


def test_missing_says_how_to_get_it(name, tmp_path):
    with pytest.raises(LocalLearnError, match=f"run locallearn data get {name}"):
        LOADERS[name](tmp_path)


def test_a_download_without_a_package_is_one_of_a_host_alone():
    assert {name for name, download in getting._DOWNLOADS.items() if download.package} == {"cifar10"}
    assert all(isinstance(download, Download) and download.urls for download in getting._DOWNLOADS.values())

"""Class folders and tar shards: which images there are, of which class, and what is refused."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tiny_images import CLASSES, jpeg, shard, shards_from, tree
from tiny_sets import members

from locallearn import LocalLearnError, LocalLearnWarning
from locallearn.data import FileSet, get, image_folder, imagenet
from locallearn.data.files import shards as shards_file
from locallearn.data.files.file_set import Files


def contents(files: Files) -> list[tuple[bytes, int]]:
    return [(files.read(index), int(files.labels[index])) for index in range(len(files))]


@pytest.fixture
def folder(tmp_path):
    return tree(tmp_path / "set")


def test_classes_are_the_folders_in_train_sorted_by_name(folder):
    data = image_folder(folder)
    assert data.classes == CLASSES
    assert (len(data.train), len(data.test)) == (24, 12)
    assert data.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert data.image_shape == (3, 224, 224)
    for files, split in ((data.train, "train"), (data.test, "val")):
        for index in range(len(files)):
            assert files.name(index).startswith(str(folder / split / CLASSES[files.labels[index]]))
            assert files.read(index) == Path(files.name(index)).read_bytes()


def test_images_may_lie_deeper_and_other_files_do_not_count(folder):
    deeper = folder / "train" / "bee" / "more" / "and more"
    deeper.mkdir(parents=True)
    (deeper / "zürich.JPEG").write_bytes(jpeg(1))
    (folder / "train" / "bee" / "notes.txt").write_text("mine")
    (folder / "train" / "bee" / "._000.jpg").write_text("another system's")
    (folder / "train" / ".hidden").mkdir()
    data = image_folder(folder)
    assert len(data.train) == 25
    names = [data.train.name(index) for index in np.flatnonzero(data.train.labels == 1)]
    assert str(deeper / "zürich.JPEG") in names
    assert data.train.read(int(np.flatnonzero(data.train.labels == 1)[names.index(str(deeper / "zürich.JPEG"))]))


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_the_test_split_has_other_names_too(tmp_path, name):
    assert len(image_folder(tree(tmp_path / "set", test_name=name)).test) == 12


def test_a_class_may_be_missing_from_the_test_images(folder):
    for path in (folder / "val" / "ant").iterdir():
        path.unlink()
    (folder / "val" / "ant").rmdir()
    assert image_folder(folder).test.labels.tolist() == [1] * 4 + [2] * 4


def test_mistakes_of_layout_are_told(folder, tmp_path):
    def told() -> str:
        with pytest.raises(LocalLearnError) as error:
            image_folder(folder)
        assert "\n" not in str(error.value)
        return str(error.value)

    (folder / "val" / "beee").mkdir()
    assert told() == f"{folder / 'val' / 'beee'} is no class of the training images; did you mean 'bee'?"
    (folder / "val" / "beee").rename(folder / "train" / "dog")
    assert told().startswith(f"{folder / 'train' / 'dog'} holds no images (.jpg, ")
    (folder / "train" / "dog").rmdir()
    (folder / "val").rename(folder / "vall")
    assert told().startswith(f"{folder} has no val or test folder: lay images out as train/CLASS/ANY.jpg")
    (folder / "val").mkdir()
    (folder / "val" / "a.jpg").write_bytes(jpeg(0))
    assert told().startswith(f"{folder / 'val'} has no class folders: lay images out")
    (folder / "train").rename(folder / "trains")
    assert told().startswith(f"{folder} has no train folder: ")
    with pytest.raises(LocalLearnError, match="there is no folder"):
        image_folder(tmp_path / "nothing")


def test_fewer_training_images_are_of_all_classes_and_always_the_same(folder):
    data, again = image_folder(folder).limited(9), image_folder(folder).limited(9)
    assert len(set(data.train.labels.tolist())) == 3
    assert contents(data.train) == contents(again.train)
    assert len(set(contents(data.train))) == 9
    for count in (0, 25):
        with pytest.raises(LocalLearnError, match="there are 24 training images"):
            data = image_folder(folder).limited(count)


def test_shards_hold_the_same_images_as_folders(folder, tmp_path):
    data, other = image_folder(folder), image_folder(shards_from(folder, tmp_path / "shards"))
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 5
    assert contents(data.train) == contents(other.train)
    assert contents(data.test) == contents(other.test)
    assert other.classes == ("0", "1", "2")
    assert other.train.name(11) == f"{tmp_path / 'shards' / 'tiny-train-000001.tar'}: bee/003"
    assert contents(other.limited(5).train) == contents(data.limited(5).train)


def test_shards_may_lie_in_folders_and_have_names_of_classes(folder, tmp_path):
    shards_from(folder, tmp_path / "shards")
    for split in ("train", "val"):
        (tmp_path / "set2" / split).mkdir(parents=True)
        for number, path in enumerate(sorted((tmp_path / "shards").glob(f"tiny-{split}-*.tar"))):
            path.rename(tmp_path / "set2" / split / f"{number:04d}.tar")
    (tmp_path / "set2" / "classes.txt").write_text("ant\nbee\ncow\n")
    data = image_folder(tmp_path / "set2")
    assert data.classes == CLASSES
    assert contents(data.train) == contents(image_folder(folder).train)


def test_archives_beside_class_folders_do_not_count(folder):
    shard(folder / "train" / "ant.tar", [("a.jpg", jpeg(0))])
    shard(folder / "all.tar", [("a.jpg", jpeg(0))])
    assert len(image_folder(folder).train) == 24


def test_the_table_of_shards_is_kept_until_a_shard_changes(folder, tmp_path, monkeypatch):
    shards = shards_from(folder, tmp_path / "shards")
    expected = contents(image_folder(shards).train)
    read, samples = [], shards_file._samples
    monkeypatch.setattr(shards_file, "_samples", lambda path: read.append(path.name) or samples(path))
    assert contents(image_folder(shards).train) == expected
    assert not read
    first = shards / "tiny-train-000000.tar"
    os.utime(first, ns=(0, 0))
    assert contents(image_folder(shards).train) == expected
    assert read == [f"tiny-train-{number:06d}.tar" for number in range(3)]
    kept = shards / ".val.index.npz"
    kept.write_bytes(kept.read_bytes()[:-40])
    assert len(image_folder(shards).test) == 12
    assert read[3:] == ["tiny-val-000000.tar", "tiny-val-000001.tar"]


def test_shards_in_a_folder_that_cannot_be_written_are_read(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(shards_file, "write_whole", refuse)
    shards = shards_from(folder, tmp_path / "shards")
    assert len(image_folder(shards).train) == 24
    assert not list(shards.glob(".*"))


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([("a.jpg", b"x")], "has no .cls file for a."),
        ([("a.cls", b"1")], "has no image (.jpg, .png, .webp) for a."),
        ([], "has no image (.jpg, .png, .webp) for any image."),
        ([("a.jpg", b"x"), ("a.cls", b"one")], "has a .cls file that is no number ("),
    ],
)
def test_a_shard_of_another_layout_is_named(tmp_path, samples, told):
    path = shard(tmp_path / "a-train-0.tar", samples)
    shard(tmp_path / "a-val-0.tar", [("a.jpg", b"x"), ("a.cls", b"0")])
    with pytest.raises(LocalLearnError) as error:
        image_folder(tmp_path)
    assert str(error.value).startswith(f"{path} {told}")


@pytest.mark.parametrize("kept", [100, 700, 0.8])
def test_a_shard_that_is_cut_off_is_named(folder, tmp_path, kept):
    shards = shards_from(folder, tmp_path / "shards")
    path = shards / "tiny-train-000001.tar"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(LocalLearnError, match=rf"{path} (is cut off or no plain tar archive|has no)"):
        image_folder(shards)


def test_a_compressed_shard_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a-train-0.tar", "w:gz"):
        pass
    shard(tmp_path / "a-val-0.tar", [("a.jpg", b"x"), ("a.cls", b"0")])
    with pytest.raises(LocalLearnError, match="is cut off or no plain tar archive"):
        image_folder(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "cls"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.REGTYPE])
def test_members_of_a_shard_that_are_no_files_of_a_fitting_size_are_refused(tmp_path, kind, suffix):
    member = tarfile.TarInfo(f"a.{suffix}")
    member.type, member.size = kind, 200 * 10**9 if kind == tarfile.REGTYPE else 0
    path = members(tmp_path / "a-train-0.tar", [(member, b"")])
    shard(tmp_path / "a-val-0.tar", [("a.jpg", b"x"), ("a.cls", b"0")])
    with pytest.raises(LocalLearnError, match=rf"{path} .*a.{suffix} is no plain file of at most "):
        image_folder(tmp_path)


def test_a_shard_that_is_a_fifo_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a-train-0.tar")
    shard(tmp_path / "a-val-0.tar", [("a.jpg", b"x"), ("a.cls", b"0")])
    with pytest.raises(LocalLearnError, match=r"a-train-0.tar is no regular file"):
        image_folder(tmp_path)


def test_shards_of_one_split_alone_are_refused(tmp_path):
    path = shard(tmp_path / "a-train-0.tar", [("a.jpg", b"x"), ("a.cls", b"0")])
    with pytest.raises(LocalLearnError, match=r"has no val shards: say so in their names, as in val-0000\.tar"):
        image_folder(tmp_path)
    path.rename(tmp_path / "a-val-0.tar")
    with pytest.raises(LocalLearnError, match="has no train shards"):
        image_folder(tmp_path)


def test_a_class_that_training_images_do_not_have_is_refused(tmp_path):
    shard(tmp_path / "a-train-0.tar", [("a.jpg", b"x"), ("a.cls", b"1")])
    shard(tmp_path / "a-val-0.tar", [("b.jpg", b"x"), ("b.cls", b"2")])
    with pytest.raises(LocalLearnError, match=r"a-val-0.tar: b has class 2, but the classes are 0 to 1"):
        image_folder(tmp_path)


def test_imagenet_has_a_thousand_classes(tmp_path, monkeypatch):
    with pytest.raises(LocalLearnError, match="locallearn data get imagenet tells how to get it"):
        imagenet(tmp_path)
    tree(tmp_path / "imagenet")
    with pytest.raises(LocalLearnError, match=r"has 3 classes, but ImageNet has 1,000: name .*--data .*imagenet\."):
        imagenet(tmp_path)
    monkeypatch.setattr("locallearn.data.official.imagenet._CLASSES", 3)
    with pytest.warns(LocalLearnWarning, match="holds 24 of ImageNet's 1,281,167 training and 12 of its 50,000"):
        assert isinstance(imagenet(tmp_path), FileSet)


def test_how_to_get_imagenet_is_told(tmp_path, monkeypatch):
    lines: list[str] = []
    with pytest.raises(LocalLearnError, match=r"ImageNet is not at \S+imagenet, and its terms .*register at https://"):
        get("imagenet", tmp_path, report=lines.append)
    assert all(
        text in lines[0] for text in ("image-net.org", "ILSVRC2012_img_train.tar", f"{tmp_path}/imagenet/val/n01440764")
    )
    with pytest.raises(LocalLearnError, match="ImageNet is not copied: give its folder by its path"):
        get("imagenet", tmp_path, archive=tmp_path, report=lines.append)
    tree(tmp_path / "imagenet")
    monkeypatch.setattr("locallearn.data.official.imagenet._CLASSES", 3)
    with pytest.warns(LocalLearnWarning):
        get("imagenet", tmp_path, report=lines.append)
    assert lines[-1] == f"ImageNet is at {tmp_path / 'imagenet'}: 24 training and 12 test images."

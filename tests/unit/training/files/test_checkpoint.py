import builtins
import errno
import hashlib
import io
import os
import traceback
import zipfile

import pytest
import torch

from locallearn import LocalLearnError
from locallearn.training import load_checkpoint, save_checkpoint

STATE = {
    "net": {"weights": torch.arange(300.0)},
    "average": {},
    "optimizers": {},
    "random": {},
    "epoch": 3,
    "step": 0,
    "seconds": 0.5,
    "sums": [],
    "seen": 0,
    "skipped": ["a", "b"],
    "best": 0.5,
}


def same(state) -> bool:
    equal = torch.equal(state["net"]["weights"], STATE["net"]["weights"])
    return equal and state["epoch"] == 3 and state["skipped"] == ["a", "b"]


def test_what_is_saved_is_loaded_also_by_torch_alone(tmp_path):
    save_checkpoint(STATE, tmp_path / "last.pt")
    assert same(load_checkpoint(tmp_path / "last.pt"))
    assert same(torch.load(tmp_path / "last.pt", weights_only=True))
    assert zipfile.ZipFile(tmp_path / "last.pt").testzip() is None
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_any_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(STATE, path)
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(LocalLearnError, match=r"the checkpoint .*last.pt is damaged"):
            load_checkpoint(path)


@pytest.mark.parametrize("length", [0, 10, 1000, -1])
def test_a_partial_file_is_noticed(tmp_path, length):
    path = tmp_path / "last.pt"
    save_checkpoint(STATE, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(LocalLearnError, match="is damaged"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LocalLearnError, match=r"the checkpoint .*gone.pt is missing"):
        load_checkpoint(tmp_path / "gone.pt")


def test_a_file_that_never_ends_is_refused_unread(tmp_path):
    path = tmp_path / "last.pt"
    os.mkfifo(path)
    with pytest.raises(LocalLearnError, match=r"cannot be read: last\.pt is no regular file"):
        load_checkpoint(path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**33)  # sparse: takes no room on the disk
    with pytest.raises(LocalLearnError, match="is damaged"):
        load_checkpoint(path)
    with path.open("wb") as file:
        file.truncate(2**43)
    with pytest.raises(LocalLearnError, match=r"last\.pt has .* bytes, more than"):
        load_checkpoint(path)


class FailingFile:
    """A file that takes some bytes and then fails."""

    def __init__(self, file, limit, error):
        self.file, self.limit, self.error = file, limit, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[: self.limit])
        raise self.error

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.fixture
def failing_open(monkeypatch):
    def use(error, limit=100):
        whole_open = builtins.open

        def partial_open(path, mode="r", **options):
            file = whole_open(path, mode, **options)
            return FailingFile(file, limit, error) if "w" in mode else file

        monkeypatch.setattr(builtins, "open", partial_open)

    return use


def test_a_full_disk_is_told_and_the_old_checkpoint_stays(tmp_path, failing_open):
    path = tmp_path / "last.pt"
    save_checkpoint(STATE, path)
    failing_open(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(
        LocalLearnError,
        match=r"the disk is full: .*last.pt needs [\d,]+ bytes. Make room; the file that was there is whole",
    ):
        save_checkpoint(STATE | {"epoch": 4}, path)
    assert same(load_checkpoint(path))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_kill_in_mid_write_leaves_the_old_checkpoint(tmp_path, failing_open):
    path = tmp_path / "last.pt"
    save_checkpoint(STATE, path)
    failing_open(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(STATE | {"epoch": 4}, path)
    assert same(load_checkpoint(path))


def test_a_disk_that_garbles_is_noticed_before_the_old_checkpoint_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(STATE, path)
    whole_read = type(path).read_bytes
    monkeypatch.setattr(type(path), "read_bytes", lambda self: whole_read(self)[:-1] + b"?")
    with pytest.raises(LocalLearnError, match="does not read back as it was written"):
        save_checkpoint(STATE | {"epoch": 4}, path)
    monkeypatch.undo()
    assert same(load_checkpoint(path))


def signed(path, content: bytes) -> None:
    """A file whose digest is right, whatever it holds."""
    archive = bytearray(content)
    archive[-2:] = (64).to_bytes(2, "little")
    path.write_bytes(bytes(archive) + hashlib.sha256(archive).hexdigest().encode())


class Touch:
    def __reduce__(self):
        return print, ("ran",)


def test_a_pickle_that_asks_for_code_is_refused_and_nobody_advises_to_run_it(tmp_path, capsys):
    buffer = io.BytesIO()
    torch.save({"net": Touch()}, buffer)
    signed(tmp_path / "last.pt", buffer.getvalue())
    with pytest.raises(LocalLearnError) as caught:
        load_checkpoint(tmp_path / "last.pt")
    assert "holds more than numbers and tensors" in str(caught.value)
    assert "weights_only" not in "".join(traceback.format_exception(caught.value))
    assert capsys.readouterr().out == ""


def test_a_list_is_no_checkpoint(tmp_path):
    buffer = io.BytesIO()
    torch.save([1, 2], buffer)
    signed(tmp_path / "last.pt", buffer.getvalue())
    with pytest.raises(LocalLearnError, match="holds a list, no state of training"):
        load_checkpoint(tmp_path / "last.pt")


def test_the_checkpoint_before_stays_where_asked(tmp_path):
    last, previous = tmp_path / "last.pt", tmp_path / "last.prev.pt"
    for epoch in (1, 2, 3):
        save_checkpoint(STATE | {"epoch": epoch}, last, previous=previous)
    assert (load_checkpoint(previous)["epoch"], load_checkpoint(last)["epoch"]) == (2, 3)


def test_an_object_in_the_state_is_refused_before_anything_is_written(tmp_path):
    save_checkpoint(STATE, tmp_path / "last.pt")
    spoiled = {**STATE, "optimizers": {"state": {"weights": {"touch": Touch()}}}}
    with pytest.raises(LocalLearnError, match=r"no checkpoint is written: the optimizer's state holds .*print"):
        save_checkpoint(spoiled, tmp_path / "last.pt")
    assert same(load_checkpoint(tmp_path / "last.pt"))

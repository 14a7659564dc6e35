"""CIFAR's pickles: every dialect is read, no program is run."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from tiny_sets import SETS, planes, same

from locallearn import LocalLearnError
from locallearn.data.official.cifar_pickles import joined, read_batch, write_batch

SPLIT, OTHER = SETS["cifar10"].splits()
CONTENT = {b"labels": SPLIT.labels.tolist(), b"data": planes(SPLIT)}


class Program:
    """Runs when a careless reader unpickles it."""

    def __reduce__(self):
        return os.mkdir, ("it_ran",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("text", [False, True])
def test_every_protocol_is_read_with_keys_of_bytes_or_text(tmp_path, protocol, text):
    content = {key.decode(): value for key, value in CONTENT.items()} if text else CONTENT
    (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol))
    assert same(read_batch(tmp_path / "batch", "labels"), SPLIT)


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_batches_of_old_and_new_numpy_are_read(tmp_path, module):
    content = pickle.dumps(CONTENT, 2).replace(b"cnumpy._core.", b"cnumpy.core.")
    content = content.replace(b"cnumpy.core.", b"c" + module + b".")
    assert b"c" + module + b".multiarray\n_reconstruct" in content
    (tmp_path / "batch").write_bytes(content)
    assert same(read_batch(tmp_path / "batch", "labels"), SPLIT)


def test_dtypes_as_python_2_wrote_them_are_read(tmp_path):
    # dtype('u1', 0, 1) and 8-bit texts
    content = pickle.dumps(CONTENT, 2)
    old = content.replace(b"X\x02\x00\x00\x00u1", b"U\x02u1").replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
    assert old != content
    (tmp_path / "batch").write_bytes(old)
    assert same(read_batch(tmp_path / "batch", "labels"), SPLIT)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_asks_for_a_program_is_not_obeyed(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": Program(), b"labels": []}, protocol))
    expected = r"^batch is garbled \(UnpicklingError: it asks for posix.mkdir, .* was not obeyed\)$"
    with pytest.raises(LocalLearnError, match=expected):
        read_batch(tmp_path / "batch", "labels")
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        {b"labels": [1, 2]},
        [1, 2],
        {b"data": b"pixels", b"labels": [1, 2]},
        {b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": ["one", "two"]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((2, 3072)), b"labels": [1, 2]},
        {b"data": np.full((2, 3072), b"", object), b"labels": [1, 2]},
    ],
)
def test_a_garbled_batch_is_named(tmp_path, content):
    (tmp_path / "batch").write_bytes(pickle.dumps(content))
    with pytest.raises(LocalLearnError, match=r"^batch is garbled \([^\n]+\)$"):
        read_batch(tmp_path / "batch", "labels")


def test_what_is_written_is_read_by_us_and_by_others(tmp_path):
    write_batch(tmp_path / "batch", SPLIT)
    assert same(read_batch(tmp_path / "batch", "labels"), SPLIT)
    entry = pickle.loads((tmp_path / "batch").read_bytes(), encoding="latin1")  # as torchvision reads it
    assert np.array_equal(entry["data"], planes(SPLIT))
    assert entry["labels"] == SPLIT.labels.tolist()


def test_batches_are_joined_in_order():
    whole = joined([SPLIT, OTHER])
    assert np.array_equal(whole.images, np.concatenate([SPLIT.images, OTHER.images]))
    assert np.array_equal(whole.labels, np.concatenate([SPLIT.labels, OTHER.labels]))

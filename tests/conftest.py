"""Settings for all tests."""

import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest


def pytest_configure() -> None:
    # Several test processes share few cores, and small networks gain nothing from more threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start


def pytest_collection_finish() -> None:
    # The collected tests and PyTorch's own objects live to the end: a tenth of the time went into looking through them,
    # and another twentieth into collections after every 700 new objects.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def unsaved_curves() -> Iterator[None]:
    """The curves of a run are drawn, but no picture is made of them, which takes longer than most runs here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("locallearn.training.curves.save", lambda figure, path: path.touch())
        yield


@cache
def slow_tests() -> frozenset[str]:
    """The tests that `slow.txt` names, as `file::name`, with or without parameters."""
    names, file = [], ""
    for line in (Path(__file__).parent / "slow.txt").read_text().splitlines():
        if line.startswith("    "):
            names.append(f"{file}::{line.strip()}")
        elif not line.startswith("#"):
            file = line
    return frozenset(names)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch  # the process that hands the tests out needs no PyTorch

    torch.set_num_threads(1)
    collected = set()
    for item in items:
        names = {item.nodeid, item.nodeid.partition("[")[0]}
        collected |= names
        if names & slow_tests():
            item.add_marker(pytest.mark.slow)
    if config.args == config.getini("testpaths") and (unknown := slow_tests() - collected):
        raise pytest.UsageError(f"tests/slow.txt names tests that are not there: {', '.join(sorted(unknown))}")

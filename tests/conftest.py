"""Settings for all tests."""

import gc
import os
from functools import cache
from pathlib import Path

import pytest
import torch


def pytest_configure() -> None:
    # Several test processes share few cores, and small networks gain nothing from more threads.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start


def pytest_collection_finish() -> None:
    # The collected tests and PyTorch's own objects live to the end: a tenth of the time went into looking through them.
    gc.collect()
    gc.freeze()


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
    collected = set()
    for item in items:
        names = {item.nodeid, item.nodeid.partition("[")[0]}
        collected |= names
        if names & slow_tests():
            item.add_marker(pytest.mark.slow)
    if config.args == config.getini("testpaths") and (unknown := slow_tests() - collected):
        raise pytest.UsageError(f"tests/slow.txt names tests that are not there: {', '.join(sorted(unknown))}")

"""A run of two epochs, trained once for all tests of training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_runs import settings

from locallearn.training import train


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A run of two epochs, which no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(settings(epochs=2), folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "run")

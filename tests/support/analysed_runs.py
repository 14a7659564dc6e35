"""Two short runs to analyse, trained once: `bp`, and `dgl` with heads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_runs import settings

import locallearn as ll
from locallearn.analysis import Run
from locallearn.training import TrainSettings, train

SETTINGS: dict[str, TrainSettings] = {
    "bp": settings(rule=ll.BP(), epochs=1),
    "dgl": settings(epochs=1, eval_heads=True),
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """The folder of the runs; do not write there."""
    folder = tmp_path_factory.mktemp("analysed")
    for name, asked in SETTINGS.items():
        train(asked, folder / name)
    return folder


@pytest.fixture
def runs(trained, tmp_path) -> Path:
    """A copy of them, to analyse or damage."""
    return shutil.copytree(trained, tmp_path / "runs")


def opened(folder: Path, name: str, **options) -> Run:
    """A run with its heads."""
    return Run(folder / name, settings=SETTINGS[name], **options)


def backbone(folder: Path, name: str, **options) -> Run:
    """A run without its heads, read from its folder alone."""
    return Run(folder / name, trust_code=True, **options)

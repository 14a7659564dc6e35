"""One pair of processes for all tests of this folder."""

from __future__ import annotations

import os
from typing import Any

import pipelined_steps
import pytest
import torch
from filelock import FileLock
from processes import in_processes


@pytest.fixture(scope="session")
def processes(tmp_path_factory) -> list[dict[str, Any]]:
    """What each of two processes has done, by data and by modules; the test processes of one session share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pair"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            in_processes(pipelined_steps.both, folder, before=pipelined_steps.localize_all)
            (folder / "done").touch()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]

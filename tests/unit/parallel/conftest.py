"""One pair of processes for all tests of this folder."""

from __future__ import annotations

from typing import Any

import pipelined_steps
import pytest
from processes import in_processes


@pytest.fixture(scope="session")
def processes(tmp_path_factory) -> list[dict[str, Any]]:
    """What each of two processes has done, by data and by modules."""
    return in_processes(pipelined_steps.both, tmp_path_factory.mktemp("processes"))

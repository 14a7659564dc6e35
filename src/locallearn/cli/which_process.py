"""Which of the processes that torchrun started this one is."""

from __future__ import annotations

import os


def which_process() -> str:
    """The start of an error sentence, such as `process 1 of 2: `; empty in a process alone."""
    count = os.environ.get("WORLD_SIZE", "1")
    return f"process {os.environ.get('RANK', '0')} of {count}: " if count != "1" else ""

"""Processes that decode images."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from locallearn._errors import LocalLearnError
from locallearn.data._archives import brief


def alive(loader: DataLoader[Any]) -> Iterator[Any]:
    """What a loader gives; that one of its processes died is told in a sentence."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LocalLearnError(
            f"a process that decodes images died ({brief(error)}): there may be too little memory (or shared memory);"
            " try fewer --workers."
        ) from None


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_signals_to_the_trainer(_: int) -> None:
    """Ctrl-C reaches all processes of a terminal, but the trainer alone finishes its step and then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

"""Processes that decode images."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from locallearn._utils.errors import LocalLearnError, describe


def in_order(images: Dataset[Any], keys: Sequence[Any], *, workers: int, pin_memory: bool = False) -> Iterator[Any]:
    """The items of a data set, read by worker processes, in the order of their keys.

    Args:
        images: the data set.
        keys: of the items, in order.
        workers: processes, at most as many as there are processors; 0 reads between the steps.
        pin_memory: as PyTorch has it.

    Raises:
        LocalLearnError: a process died.
    """
    loader = DataLoader(
        images,
        batch_size=None,
        sampler=keys,  # pyright: ignore[reportArgumentType]
        num_workers=min(workers, _processors()),
        collate_fn=_as_it_is,
        worker_init_fn=leave_signals_to_the_trainer,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # or the loader would draw from the numbers that training draws from
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LocalLearnError(
            f"a process that decodes images died ({describe(error)}): there may be too little memory (or shared"
            " memory); try fewer --workers."
        ) from error


def _processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_signals_to_the_trainer(_: int) -> None:
    """A terminal's signals reach all its processes; the trainer alone finishes its step, and then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        os.setpgid(0, 0)  # torchrun sends SIGTERM to the trainer's whole group


def _as_it_is(batch: Any) -> Any:
    return batch

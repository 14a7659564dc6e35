"""Functions in several processes that talk to one another by gloo, and runs in processes of their own."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist


def in_processes(
    function: Callable[[int], object], folder: Path, *, count: int = 2, before: Callable[[], object] | None = None
) -> list:
    """Run `function(rank)` in each of `count` processes; what each returned.

    What `before` caches is made once for all of them.
    """
    torch.multiprocessing.spawn(_divide, args=(function, str(folder), count, before), nprocs=1)  # pyright: ignore[reportPrivateImportUsage]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def wait_for_epochs(folder: Path, epochs: int, *, window: int | None = None) -> None:
    """Wait until a run in another process has a checkpoint and so many epochs.

    `window` is the run's terminal, where it has one: it takes what is written to it.
    """
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            _ = window and os.read(window, 65536)
        metrics = folder / "metrics.jsonl"
        if (folder / "last.pt").exists() and metrics.exists() and len(metrics.read_text().splitlines()) >= epochs:
            return
        time.sleep(0.02)
    raise AssertionError("the run did not get there")


def _divide(
    _: int, function: Callable[[int], object], folder: str, count: int, before: Callable[[], object] | None
) -> None:
    """A new process with one thread, which makes once what all of them need, and divides."""
    torch.set_num_threads(1)
    import_module("torch._dynamo")  # as the first step does
    if before is not None:
        before()
    gc.freeze()  # garbage collections and searches of all objects take longest over what the imports made
    torch.multiprocessing.start_processes(  # pyright: ignore[reportPrivateImportUsage]
        _work, args=(function, folder, count), nprocs=count, start_method="fork"
    )


def _work(rank: int, function: Callable[[int], object], folder: str, count: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    try:
        torch.save(function(rank), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()

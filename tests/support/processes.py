"""Functions in several processes that talk to one another by gloo."""

from __future__ import annotations

import gc
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist


def in_processes(function: Callable[[int], object], folder: Path, *, count: int = 2) -> list:
    """Run `function(rank)` in each of `count` processes; what each returned."""
    torch.multiprocessing.spawn(_work, args=(function, str(folder), count), nprocs=count)  # pyright: ignore[reportPrivateImportUsage]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _work(rank: int, function: Callable[[int], object], folder: str, count: int) -> None:
    torch.set_num_threads(1)
    import_module("torch._dynamo")  # as the first step does
    gc.freeze()  # garbage collections and searches of all objects take longest over what the imports made
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    try:
        torch.save(function(rank), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()

"""Processes come together, and end together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn.training.processes.grid import ProcessGrid
from locallearn.training.processes.heartbeat import Heartbeat, wait_for_all
from locallearn.training.processes.launch import Launch
from locallearn.training.processes.processes import ManyProcesses, Processes

_COMMAND = "torchrun --nproc-per-node 2 -m locallearn train ... --parallel"
_LONGER = 60.0
"""Seconds by which PyTorch's own time-out is longer than ours, which says more."""


@contextmanager
def joined_processes(parallel: str | None, device: torch.device, *, timeout: float) -> Iterator[Processes]:
    """The processes of a run, which end together: with success, or soon after one of them fails.

    Args:
        parallel: the layout, as of `ProcessGrid.of`; None for one process alone.
        device: where to compute; of several GPUs, each process takes its own.
        timeout: seconds after which a process that is silent, or does not go on, is given up.

    Raises:
        LocalLearnError: there is no torchrun where it is needed, or the other way round; the processes do not find one
            another; or one of them is gone.
    """
    launch = Launch.of()
    if parallel is None:
        if launch is not None and launch.count > 1:
            raise LocalLearnError(
                f"torchrun started {launch.count} processes, and each would train the same run: share it among them by"
                " locallearn train --parallel data, or start one process without torchrun."
            )
        yield Processes(device)
        return
    if launch is None:
        raise LocalLearnError(f"parallel={parallel!r} needs several processes: start them by {_COMMAND} {parallel}")
    layout = ProcessGrid.of(parallel, launch.count)
    device, backend = _device_and_backend(device, launch)
    store = _connected(launch, timeout)
    heartbeat = Heartbeat(store.clone(), launch, timeout)  # pyright: ignore[reportAttributeAccessIssue]
    if missing := wait_for_all(store, launch):
        names = " and ".join(launch.named(rank) for rank in missing)
        raise LocalLearnError(f"{names} did not come to {launch.address} within {timeout:g} s (parallel_timeout).")
    heartbeat.start()
    try:
        try:
            seconds = timedelta(seconds=timeout + _LONGER)
            group = dist.PrefixStore("group", store)
            dist.init_process_group(backend, store=group, rank=launch.rank, world_size=launch.count, timeout=seconds)
            mesh = init_device_mesh(device.type, (layout.modules, layout.data), mesh_dim_names=("modules", "data"))
            yield (processes := ManyProcesses(device, launch, layout, mesh, heartbeat))
            processes.at("finishing")
            dist.barrier()
        except (RuntimeError, LocalLearnError) as error:
            reason = error.__cause__ if isinstance(error, LocalLearnError) else error
            if not isinstance(reason, RuntimeError) or not _lost_others(reason):
                raise
            raise LocalLearnError(f"{heartbeat.cause()} ({_short(reason)}).") from reason
    except BaseException as error:
        if not isinstance(error, LocalLearnError | KeyboardInterrupt | SystemExit):
            print(f"{launch.named()}: {type(error).__name__}", file=sys.stderr, flush=True)
        heartbeat.fail()
        raise
    heartbeat.stop()
    dist.destroy_process_group()


def _device_and_backend(device: torch.device, launch: Launch) -> tuple[torch.device, str]:
    """This process's own device, and how tensors on it travel."""
    if device.type != "cuda":
        return device, "gloo"
    count = torch.cuda.device_count()
    own = torch.device("cuda", launch.local_rank % count) if device.index is None else device
    torch.cuda.set_device(own)
    return own, "cpu:gloo,cuda:nccl" if device.index is None and launch.local_count <= count else "gloo"


def _connected(launch: Launch, timeout: float) -> dist.PrefixStore:
    """A connection to where the processes meet."""
    try:
        store = dist.TCPStore(
            launch.host,
            launch.port,
            is_master=launch.rank == 0 and not launch.hosted,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,
        )
    except (RuntimeError, ValueError) as error:
        raise LocalLearnError(
            f"{launch.address}, where the processes meet (MASTER_ADDR, MASTER_PORT), cannot be reached within"
            f" {timeout:g} s: {reason_of(error)}."
        ) from error
    return dist.PrefixStore(f"locallearn/{launch.restarts}", store)


def _lost_others(error: RuntimeError) -> bool:
    """Whether an error says that other processes cannot be reached."""
    words = str(error)
    return isinstance(error, dist.DistError) or "gloo" in words or "NCCL" in words


def _short(error: RuntimeError) -> str:
    """The reason in an error of gloo, without the place in its source and its advice."""
    return reason_of(error).rpartition(".cc:")[2].partition("] ")[2].partition(". ")[0] or reason_of(error)

"""What `parallel.py` runs in each of its two processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

import locallearn as ll
from locallearn._planning.prediction import MakeStepper, nesterov_sgd
from locallearn._torch.live_bytes import LiveBytes
from locallearn._utils.registry import find
from locallearn.cost import Activity
from locallearn.simulation import Load, assign, load_of, measured_times

Step = Callable[[], object]
PROCESSES = 2
SHAPE = 3, 32, 32


def begin(rank: int, folder: str) -> None:
    """One thread, on a core of its own, in a group with the other process."""
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)


def batch_of(images: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(images, *SHAPE, generator=draw).to(memory_format=torch.channels_last)
    return x, torch.randint(0, 10, (images,), generator=draw)


def net_of(model: str, rule: ll.Rule) -> ll.LocalNet:
    torch.manual_seed(0)
    net = ll.localize(find("models", model)(num_classes=10), rule, input_shape=SHAPE)
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def same(value: Any) -> Any:
    """The first process's value, in both."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


class MeasuredLoad:
    """The load of a step, by times of this machine while both processes compute: medians over measurements.

    Args:
        net: the network.
        images: in the batch.
    """

    def __init__(self, net: ll.LocalNet, images: int) -> None:
        self._net, self._images = net, images
        self._counted = load_of(net, images)
        self._times: list[dict[tuple[Activity, int], float]] = []
        self.measure(steps=5)

    def measure(self, *, steps: int = 1) -> None:
        """Measure once more."""
        dist.barrier()
        self._times.append(measured_times(self._net, self._images, steps=steps))

    @property
    def now(self) -> Load:
        """By the times measured so far in the first process; the same in both."""
        return same(self._counted.with_times({w: median(t[w] for t in self._times) for w in self._times[0]}))


def local_step(net: ll.LocalNet, images: Tensor, labels: Tensor, make_stepper: MakeStepper = nesterov_sgd) -> Step:
    stepper = make_stepper(net)

    def step() -> None:
        net.backward(images, labels, on_complete=stepper.on_complete)
        stepper.finish()

    return step


def modules_net(model: str, rule: ll.Rule, load: Load, *, send_labels: bool = False) -> ll.LocalNet:
    """This process's part of the network, by the measured time of each module."""
    device_of = assign(load, PROCESSES, load.images)
    counts = [device_of.count(device) for device in range(PROCESSES)]
    return ll.parallel.modules(net_of(model, rule), assignment=counts, send_labels=send_labels)


class _Relayout(torch.autograd.Function):
    """Changes the memory format: PyTorch's pipeline sends contiguous tensors only, convolutions run channels last."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, forward: torch.memory_format, backward: torch.memory_format) -> Tensor:
        ctx.backward_format = backward
        return features.contiguous(memory_format=forward)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].contiguous(memory_format=ctx.backward_format), None, None


class _Border(nn.Module):
    """The end of the first stage, or the begin of the second."""

    def __init__(self, *, is_end: bool) -> None:
        super().__init__()
        formats = torch.contiguous_format, torch.channels_last
        self.formats = formats if is_end else formats[::-1]

    def forward(self, features: Tensor) -> Tensor:
        return _Relayout.apply(features, *self.formats)  # pyright: ignore[reportReturnType]


class BPPipeline:
    """The same network trained by backpropagation, as a pipeline of PyTorch's (1F1B) with two stages.

    Args:
        model: the network.
        load: of a step of backpropagation, by which the stages are chosen.
        micro_batches: parts of a batch.
    """

    def __init__(self, model: str, load: Load, micro_batches: int) -> None:
        rank, net = dist.get_rank(), net_of(model, ll.BP())
        stage_of = assign(load, PROCESSES, load.images)
        layers: list[nn.Module] = [m for m, stage in zip(net.local_modules, stage_of, strict=True) if stage == rank]
        if rank == PROCESSES - 1:
            layers = [_Border(is_end=False), *layers, net.chain.classifier]
        else:
            layers.append(_Border(is_end=True))
        self.layers = nn.Sequential(*layers)
        stage = PipelineStage(self.layers, rank, PROCESSES, torch.device("cpu"))
        self._schedule = Schedule1F1B(stage, micro_batches, F.cross_entropy)
        self._optimizer = torch.optim.SGD(self.layers.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """A training step on the whole batch."""
        if dist.get_rank() == 0:
            self._schedule.step(images)
        else:
            self._schedule.step(target=labels, losses=[], return_outputs=False)
        self._optimizer.step()
        self._optimizer.zero_grad()


def seconds_of(step: Step | None, steps: int) -> float:
    """Seconds of a step in this process, from the end of a first one; 0 where it does nothing."""
    dist.barrier()
    if step is None:
        return 0.0
    step()
    start = perf_counter()
    for _ in range(steps):
        step()
    return (perf_counter() - start) / steps


@contextmanager
def counted_messages() -> Iterator[tuple[list[int], list[int]]]:
    """While active, the bytes of each tensor that this process sends to the other, and of each that both sum."""
    sizes: list[int] = []
    summed: list[int] = []
    isend, operation, all_reduce = dist.isend, dist.P2POp, dist.all_reduce

    def counting(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(tensor.nbytes)
        return isend(tensor, *args, **kwargs)

    def counting_operation(op: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> dist.P2POp:
        if op is counting:
            sizes.append(tensor.nbytes)
            op = isend
        return operation(op, tensor, *args, **kwargs)

    def counting_sum(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        summed.append(tensor.nbytes)
        return all_reduce(tensor, *args, **kwargs)

    with (
        patch.object(dist, "isend", counting),
        patch.object(dist, "P2POp", counting_operation),
        patch.object(dist, "all_reduce", counting_sum),
    ):
        yield sizes, summed


def process_bytes(field: str) -> int:
    """`VmRSS`, the memory of this process now, or `VmHWM`, the most so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def memory_of(step: Step, net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, int]:
    """Peak bytes of live tensors and of the process in two steps, and what it sends in one; two more come before."""
    before = process_bytes("VmRSS")
    step()
    step()
    dist.barrier()
    known = [*net.parameters(), *net.buffers(), images, labels]
    with LiveBytes(known=known, parameters=net.parameters()) as live:
        step()  # features that the next step uses arrive in this one
        with counted_messages() as (sent, summed):
            step()
    momenta = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return {
        "activations": live.peak_activations,
        "total": sum(tensor.nbytes for tensor in (*known, *momenta)) + live.peak,
        "process": process_bytes("VmHWM"),
        "process_before": before,
        "sent": sum(sent),
        "summed_over_processes": sum(summed),
    }


def timed(rank: int, folder: str, settings: Any) -> None:
    """Times of all layouts in turn; the first process writes them."""
    begin(rank, folder)
    images, labels = batch_of(settings.batch)
    half = slice(rank * settings.batch // 2, (rank + 1) * settings.batch // 2)
    loads: dict[tuple[str, int], MeasuredLoad] = {}
    steps: dict[str, Step | None] = {}
    bp = net_of(settings.model, ll.BP())
    steps["bp, one process"] = local_step(bp, images, labels) if rank == 0 else None
    for count in settings.micro_batches:
        load = loads["bp", settings.batch // count] = MeasuredLoad(bp, settings.batch // count)
        steps[f"bp, 1F1B, {count}"] = partial(BPPipeline(settings.model, load.now, count).step, images, labels)
    for name, rule in settings.rules.items():
        net = net_of(settings.model, rule)
        for count in (settings.batch, settings.batch // PROCESSES):
            loads[name, count] = MeasuredLoad(net, count)
        alone = local_step(net, images, labels)
        steps[f"{name}, one process"] = alone if rank == 0 else None
        steps[f"{name}, two apart"] = alone
        parts = modules_net(settings.model, rule, loads[name, settings.batch].now)
        steps[f"{name}, modules"] = local_step(parts, images, labels)
        shared = ll.parallel.data(net_of(settings.model, rule))
        steps[f"{name}, data"] = local_step(shared, images[half], labels[half])
        steps[f"{name}, data, whole batches"] = local_step(shared, images, labels)
    rows: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(settings.rounds + 1):
        for name, step in steps.items():
            slowest = torch.tensor(seconds_of(step, settings.steps))
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            if number:
                rows[name].append(slowest.item())
        for load in loads.values():
            load.measure()
    found = {"seconds": rows, "loads": {key: load.now for key, load in loads.items()}, "link": measured_link()}
    if rank == 0:
        torch.save(found, f"{folder}/timed.pt")
    dist.destroy_process_group()


def measured_link() -> tuple[float, float]:
    """Bytes in a second and seconds of latency between the processes."""
    times = []
    for size in (1, 2**24):
        tensor = torch.zeros(size, dtype=torch.uint8)
        samples = []
        for _ in range(9):
            dist.barrier()
            start = perf_counter()
            for turn in range(PROCESSES):  # there and back
                if dist.get_rank() == turn:
                    dist.send(tensor, 1 - turn)
                else:
                    dist.recv(tensor, turn)
            samples.append((perf_counter() - start) / 2)
        times.append(sorted(samples)[len(samples) // 2])
    return 2**24 / max(times[1] - times[0], 1e-9), times[0]


def counted(rank: int, folder: str, settings: Any, layout: str) -> None:
    """Memory and traffic of one layout, in processes that do nothing else."""
    begin(rank, folder)
    images, labels = batch_of(settings.batch)
    loads: dict[tuple[str, int], Load] = torch.load(f"{folder}/timed.pt", weights_only=False)["loads"]
    name, _, kind = layout.partition(", ")
    if kind.startswith("1F1B"):
        count = int(kind.rpartition(" ")[2])
        pipeline = BPPipeline(settings.model, loads[name, settings.batch // count], count)
        found = memory_of(partial(pipeline.step, images, labels), pipeline.layers, images, labels)
    elif kind == "data":
        half = slice(rank * settings.batch // 2, (rank + 1) * settings.batch // 2)
        net = ll.parallel.data(net_of(settings.model, settings.rules[name]))
        images, labels = images[half], labels[half]
        found = memory_of(local_step(net, images, labels), net, images, labels)
    else:
        load = loads[name, settings.batch]
        net = modules_net(settings.model, settings.rules[name], load, send_labels="labels" in kind)
        found = memory_of(local_step(net, images, labels), net, images, labels)
    torch.save(found, f"{folder}/counted-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()

"""Backpropagation and local learning on the same devices, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf
from typing import get_args

from locallearn._engine.local_net import GRADIENT_BUCKET
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.simulation.layouts import (
    DDP_BUCKET,
    Outcome,
    PipelineOrder,
    data_parallel,
    module_parallel,
    pipeline,
)
from locallearn.simulation.link import Link
from locallearn.simulation.load import Load

_MICRO_BATCHES = 4
"""Micro-batches for each stage of a pipeline, where the user gives no number; GPipe's authors advise four or more."""

_FEW_IMAGES = 16
_IDLE = 0.2
"""From which numbers on a limit is worth a sentence."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """The result of `simulate`.

    Attributes:
        devices: their number.
        batch: images of a step, on all devices.
        bp_seconds: time of a step of backpropagation on one device.
        outcomes: a step of each layout that is possible.
        limits: what bounds each of them, in sentences.
    """

    devices: int
    batch: int
    bp_seconds: float
    outcomes: tuple[Outcome, ...]
    limits: tuple[str, ...]


def simulate(
    bp: Load,
    local: Load,
    *,
    devices: int,
    link: Link,
    batch: int,
    micro_batches: int | None = None,
    accumulate: int = 1,
    stages: int | None = None,
) -> Simulation:
    """Simulate training steps of backpropagation and of a local rule on many equal devices.

    The layouts: backpropagation data parallel (gradients are summed in buckets of 25 MiB, as by
    `DistributedDataParallel`) and as a pipeline (GPipe and 1F1B); local learning data parallel (in buckets of 1 MiB, as
    by `locallearn.parallel.data`) and module parallel. With more devices than modules, pipelines and
    module parallel run in several copies, each on a part of the batch.

    Args:
        bp: of backpropagation; its modules are the units of a pipeline's stages.
        local: of the local rule.
        devices: their number.
        link: between devices; each has its own.
        batch: images of a step, on all devices.
        micro_batches: of the pipelines; by default four for each stage, or as many as there are images.
        accumulate: micro-batches of module parallel, before each optimizer step.
        stages: of the pipelines and of module parallel; by default the largest divisor of `devices` that is at most
            the number of modules.

    Raises:
        LocalLearnError: a number is too small, or there are more stages than modules or devices.
    """
    refuse_numbers(devices=devices, batch=batch, micro_batches=micro_batches, accumulate=accumulate, stages=stages)
    if stages is not None and (devices % stages or stages > min(len(bp.modules), len(local.modules))):
        raise LocalLearnError(
            f"stages={stages}: give a divisor of {counted(devices, 'device')} that is at most"
            f" {min(len(bp.modules), len(local.modules))}, the number of modules."
        )
    shape = _Shape(
        devices=devices,
        batch=batch,
        bp_stages=stages or _most_stages(devices, bp),
        local_stages=stages or _most_stages(devices, local),
        micro_batches=micro_batches,
        accumulate=accumulate,
    )
    outcomes = _outcomes(bp, local, link, shape)
    without_links = _outcomes(bp, local, Link(bytes_per_second=inf), shape)
    return Simulation(
        devices=devices,
        batch=batch,
        bp_seconds=sum(bp.module_seconds(batch)),
        outcomes=outcomes,
        limits=tuple(_limits(bp, local, shape, outcomes, without_links)),
    )


def refuse_numbers(*, devices: int, batch: int, micro_batches: int | None, accumulate: int, stages: int | None) -> None:
    """Refuse numbers that no network could have."""
    numbers = {"devices": devices, "batch": batch, "micro_batches": micro_batches, "accumulate": accumulate}
    numbers["stages"] = stages
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise LocalLearnError(f"{name}={value} must be at least 1.")
    if batch < devices:
        raise LocalLearnError(
            f"a batch of {counted(batch, 'image')} leaves some of {devices} devices without one in data parallel"
            " training: take a larger batch or fewer devices."
        )


@dataclass(frozen=True, kw_only=True)
class _Shape:
    devices: int
    batch: int
    bp_stages: int
    local_stages: int
    micro_batches: int | None
    accumulate: int


def _most_stages(devices: int, load: Load) -> int:
    return max(count for count in range(1, min(devices, len(load.modules)) + 1) if devices % count == 0)


def _outcomes(bp: Load, local: Load, link: Link, shape: _Shape) -> tuple[Outcome, ...]:
    devices, batch = shape.devices, shape.batch
    copies = devices // shape.bp_stages
    parts = min(ceil(batch / copies), shape.micro_batches or _MICRO_BATCHES * shape.bp_stages)
    return (
        data_parallel("BP, data parallel", bp, link, devices=devices, batch=batch, bucket=DDP_BUCKET),
        *(
            pipeline(order, bp, link, stages=shape.bp_stages, copies=copies, batch=batch, micro_batches=parts)
            for order in get_args(PipelineOrder)
        ),
        data_parallel("local, data parallel", local, link, devices=devices, batch=batch, bucket=GRADIENT_BUCKET),
        module_parallel(
            local,
            link,
            stages=shape.local_stages,
            copies=devices // shape.local_stages,
            batch=batch,
            micro_batches=min(shape.accumulate, ceil(batch * shape.local_stages / devices)),
            bucket=GRADIENT_BUCKET,
        ),
    )


def _limits(
    bp: Load, local: Load, shape: _Shape, outcomes: tuple[Outcome, ...], without_links: tuple[Outcome, ...]
) -> Iterator[str]:
    """What bounds the layouts, a sentence each."""
    for what, load, stages in (("BP", bp, shape.bp_stages), ("the local rule", local, shape.local_stages)):
        if shape.devices > stages:
            yield (
                f"{shape.devices} devices, {counted(len(load.modules), 'module')} of {what}: they make"
                f" {counted(stages, 'stage')} in {shape.devices // stages} copies."
            )
    seconds = local.module_seconds(ceil(shape.batch * shape.local_stages / shape.devices))
    slowest = max(range(len(seconds)), key=seconds.__getitem__)
    yield (
        f"The slowest local module ({local.modules[slowest].name}) takes {seconds[slowest] / sum(seconds):.1%} of a"
        f" step, so a copy is at most {sum(seconds) / seconds[slowest]:.1f} times as fast as one device, whatever the"
        " number of its stages."
    )
    if (images := ceil(shape.batch / shape.devices)) < _FEW_IMAGES:
        yield (
            f"Data parallel leaves {counted(images, 'image')} for each device; batch normalisation takes its"
            " statistics from so few."
        )
    for one, free in zip(outcomes, without_links, strict=True):
        if one.bubble >= _IDLE:
            yield (
                f"{one.layout}: devices are idle {one.bubble:.0%} of the time; they would be"
                f" {max(0.0, free.bubble):.0%} with links that cost nothing."
            )

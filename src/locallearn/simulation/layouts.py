"""Ways to divide training among devices: over images, over modules, or over both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Literal

from locallearn._planning.dynamic_program import smallest_largest, summed
from locallearn.simulation.link import Link
from locallearn.simulation.load import Load
from locallearn.simulation.program import Batch, Program
from locallearn.simulation.tasks import Schedule, run

PipelineOrder = Literal["GPipe", "1F1B"]

DDP_BUCKET = 25 * 2**20
"""Bytes of gradients that `DistributedDataParallel` sums at once."""

_QUEUE = 2
"""Batches that a device may be ahead of the next one, in module parallel training."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A training step of one layout.

    Attributes:
        layout: its name.
        stages: groups of neighbouring modules, each on a device of its own.
        copies: groups of `stages` devices that each train on a part of the batch.
        micro_batches: parts of the batch that a pipeline runs one after the other.
        seconds: time of a step; of module parallel training, from one step to the next.
        bubble: share of this time in which devices do not compute, on average.
        memory: the most bytes that a device holds: weights, gradients, optimizer state, activations.
        traffic: bytes that the busiest device sends.
        link_share: share of the step in which the busiest link sends.
    """

    layout: str
    stages: int
    copies: int
    micro_batches: int
    seconds: float
    bubble: float
    memory: float
    traffic: float
    link_share: float


def assign(load: Load, stages: int, images: int) -> list[int]:
    """The device of each module: neighbours go together, and the slowest device is as fast as possible."""
    seconds = load.module_seconds(images)
    ends = smallest_largest(summed(seconds), range(len(seconds)), stages)
    return [sum(module > end for end in ends) for module in range(len(seconds))]


def data_parallel(name: str, load: Load, link: Link, *, devices: int, batch: int, bucket: float = 0.0) -> Outcome:
    """Each device has all modules and a part of the batch; gradients are summed while others are computed.

    Args:
        name: of the layout.
        load: of the rule.
        link: between devices.
        devices: their number.
        batch: images of all devices.
        bucket: bytes of gradients to wait for before they are sent; by default each module's are sent by themselves.
    """
    images = ceil(batch / devices)
    program = Program(load, [0] * len(load.modules), link, devices)
    one = program.batch(images, 0)
    for module, arrived in _sums(program, [one], bucket, (0,)).items():
        program.update(module, [arrived, max(one.last.values())], (1, module))
    schedule = run(program.tasks)
    return _outcome(name, program, schedule, schedule.seconds, steps=1, copies=devices, images=images)


def pipeline(
    order: PipelineOrder, load: Load, link: Link, *, stages: int, copies: int, batch: int, micro_batches: int
) -> Outcome:
    """Backpropagation over stages: micro-batches pass forward and backward, then all weights are stepped.

    GPipe (Huang et al., 2019) sends all micro-batches forward before the first one backward, here without
    recomputation. 1F1B (PipeDream-Flush, Narayanan et al., 2021) sends each one backward as soon as possible, and a
    device holds no more of them than there are devices from it to the last one.
    """
    images = ceil(ceil(batch / copies) / micro_batches)
    device_of = assign(load, stages, images)
    program = Program(load, device_of, link, copies)
    batches = [program.batch(images, number, backward_first=order == "1F1B") for number in range(micro_batches)]
    firsts = [device_of.index(device) for device in range(stages)]
    if order == "GPipe":
        last_forward = batches[-1].forwards[len(device_of) - 1]
        for one in batches:
            begins_backward = next(
                task for task, phase in zip(one.phases, load.phases, strict=True) if phase.activity != "forward"
            )
            _wait(program, begins_backward, last_forward)
    else:
        for device, first in enumerate(firsts):
            for one, done in zip(batches[stages - device :], batches, strict=False):
                _wait(program, one.forwards[first], done.last[first])
    for module, device in enumerate(device_of):
        arrived = [one.last[module] for one in batches]
        if copies > 1:
            arrived = [program.share([module], arrived, (2, -module))]
        of_device = [one.last[firsts[device]] for one in batches]  # no module's micro-batches wait for an update
        program.update(module, [*arrived, *of_device], (2, module))
    schedule = run(program.tasks)
    return _outcome(
        f"BP, pipeline {order}",
        program,
        schedule,
        schedule.seconds,
        steps=1,
        copies=copies,
        images=images,
        micro_batches=micro_batches,
    )


def module_parallel(
    load: Load, link: Link, *, stages: int, copies: int, batch: int, micro_batches: int = 1, bucket: float = 0.0
) -> Outcome:
    """Local learning over stages: each device trains its modules on one batch while the next device has the one before.

    As in `locallearn.parallel.modules`, weights are those of training on one device. A device sends its features as
    soon as they are computed, and begins a batch when its optimizer step of the batch before is done. It waits for the
    gradient of an objective that ends on a later device, and for the weights that an EMA copy follows. It is at most
    two (micro-)batches ahead of the next device.

    Args:
        load: of the rule.
        link: between devices.
        stages: devices of a copy.
        copies: their number; each has a part of the batch.
        batch: images of all copies in a step.
        micro_batches: parts of a copy's batch, one after the other, before each optimizer step.
        bucket: as of `data_parallel`, on each device.
    """
    images = ceil(ceil(batch / copies) / micro_batches)
    device_of = assign(load, stages, images)
    program = Program(load, device_of, link, copies)
    firsts = [device_of.index(device) for device in range(stages)]
    steps = 2 * (ceil(stages / micro_batches) + 8)
    batches: list[Batch] = []
    updates: list[dict[int, int]] = []
    for step in range(steps):
        parts = [program.batch(images, step * micro_batches + part) for part in range(micro_batches)]
        for one in parts:
            batches.append(one)
            if len(batches) > _QUEUE + 1:
                for first, following in pairwise(firsts):
                    _wait(program, one.forwards[first], batches[-_QUEUE - 2].forwards[following])
        if step:
            for module, update in updates[step - 1].items():
                _wait(program, parts[0].forwards[firsts[device_of[module]]], update)
        urgency = (0, len(batches) - 1, len(load.phases))
        after = {module: [one.last[module] for one in parts] for module in parts[0].last}
        if copies > 1:
            after = {module: [done] for module, done in _sums(program, parts, bucket, urgency).items()}
        updates.append({module: program.update(module, tasks, urgency) for module, tasks in after.items()})
        if step > 1:
            _send_weights(program, parts[0], updates[step - 2])
    schedule = run(program.tasks)
    ends = [max(schedule.ends[task] for task in done.values()) for done in updates]
    half = steps // 2
    return _outcome(
        "local, module parallel",
        program,
        schedule,
        (ends[-1] - ends[half - 1]) / (steps - half),
        steps=steps,
        copies=copies,
        images=images,
        micro_batches=micro_batches,
    )


def _sums(program: Program, batches: Sequence[Batch], bucket: float, priority: tuple[int, ...]) -> dict[int, int]:
    """For each module, the sum of its gradients over the copies; those of one device's modules travel together.

    Args:
        program: with the tasks of all micro-batches.
        batches: the micro-batches.
        bucket: bytes to wait for.
        priority: of the messages, which then go in the order in which they are ready.
    """
    last, sums = batches[-1].last, dict[int, int]()
    for device in sorted(set(program.device_of)):
        modules = sorted((m for m in last if program.device_of[m] == device), key=last.__getitem__)
        waiting: list[int] = []
        for order, module in enumerate(modules):
            waiting.append(module)
            if module == modules[-1] or sum(program.load.modules[m].gradients for m in waiting) >= bucket:
                after = [one.last[waits] for one in batches for waits in waiting]
                sums |= dict.fromkeys(waiting, program.share(waiting, after, (*priority, order)))
                waiting = []
    return sums


def _send_weights(program: Program, one: Batch, updates: dict[int, int]) -> None:
    """Send weights of later devices back to EMA copies, which move before their network runs the next time."""
    sizes: defaultdict[tuple[int, int], float] = defaultdict(float)
    for copied in program.load.copied:
        sizes[copied.by, copied.of] += copied.size
    for (by, of), size in sizes.items():
        source, target = program.device_of[of], program.device_of[by]
        if source != target:
            sent = program.send(source, size, [updates[of]], (0, -1))
            for task, phase in zip(one.phases, program.load.phases, strict=True):
                if (phase.activity, phase.module) == ("auxiliary", by):
                    _wait(program, task, sent)


def _wait(program: Program, task: int, earlier: int) -> None:
    program.tasks[task].after.append(earlier)


def _outcome(
    layout: str,
    program: Program,
    schedule: Schedule,
    seconds: float,
    *,
    steps: int,
    copies: int,
    images: int,
    micro_batches: int = 1,
) -> Outcome:
    devices = range(max(program.device_of) + 1)
    states = [0.0 for _ in devices]
    states[0] = program.load.image * images * micro_batches
    for module, device in zip(program.load.modules, program.device_of, strict=True):
        states[device] += module.state
    links = [("link", device) for device in devices]
    return Outcome(
        layout=layout,
        stages=len(states),
        copies=copies,
        micro_batches=micro_batches,
        seconds=seconds,
        bubble=1 - sum(schedule.busy[device] for device in devices) / steps / len(states) / seconds,
        memory=max(state + schedule.peaks[device] for device, state in zip(devices, states, strict=True)),
        traffic=max(schedule.sent[link] for link in links) / steps,
        link_share=max(schedule.busy[link] for link in links) / steps / seconds,
    )

"""What each process of a pipeline needs, counted on fake tensors before any process starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from locallearn._engine.local_net import LocalNet
from locallearn._engine.micro_batches import MicroBatch, micro_batches, with_times
from locallearn._engine.neighbours import Neighbours
from locallearn._planning.prediction import (
    MakeStepper,
    PeakMemory,
    bytes_of,
    known_tensors,
    nesterov_sgd,
    stepper_with_state,
    without_data,
)
from locallearn._torch.device import mixed
from locallearn._torch.live_bytes import LiveBytes
from locallearn.parallel.assignment import balanced, given, module_seconds, owners
from locallearn.parallel.asynchronous import refuse_waiting
from locallearn.parallel.followed import Link, links
from locallearn.parallel.part import NetPart


@dataclass(frozen=True, kw_only=True)
class ProcessCost:
    """What one process of a pipeline needs for a step.

    Attributes:
        modules: numbers of its local modules.
        seconds: predicted time of its work, without waiting; use it for comparisons.
        peak: its peak memory, with the features of the next batch and weights on their way.
        sent: bytes that it sends in a step, without labels: features forward, gradients and weights back.
    """

    modules: range
    seconds: float
    peak: PeakMemory
    sent: int


def predict_modules(
    net: LocalNet,
    processes: int,
    batch: int,
    *,
    accumulate: int = 1,
    assignment: Sequence[int] | None = None,
    make_stepper: MakeStepper = nesterov_sgd,
    autocast: torch.dtype | None = None,
    replay_buffer: int | None = None,
) -> list[ProcessCost]:
    """Predict what each process needs under `parallel.modules`; the network is not changed, and no process is started.

    Args:
        net: the network.
        processes: their number.
        batch: images in the batch.
        accumulate: number of micro-batches in it.
        assignment: number of local modules of each process; by default as `parallel.modules` has it.
        make_stepper: makes the optimizer.
        autocast: dtype of mixed precision, or None.
        replay_buffer: as of `parallel.modules`. A full buffer is counted, and images that travel.

    Raises:
        LocalLearnError: there are more processes than local modules, or assignment or replay buffer do not fit.
    """
    seconds = [accumulate * time for time in module_seconds(net, -(-batch // accumulate))]
    if assignment is None:
        chosen = balanced(module_seconds(net), processes)
    else:
        chosen = given(assignment, len(seconds), processes)
    with without_data(net, batch) as (copy, images, labels), mixed(images.device, autocast):
        owner = owners(copy, chosen)
        linked = links(copy.objectives, chosen, owner)
        if replay_buffer is not None:
            refuse_waiting(copy.objectives, chosen, linked)
        parts = micro_batches(images, labels, accumulate)
        features = [parts[0].images]
        with torch.no_grad():
            for module in copy.local_modules:
                features.append(module(features[-1]))
        costs = []
        for rank in range(processes):
            part = NetPart(copy, chosen, rank, owner)
            received = features[part.part.start] if rank else None
            passed_on = None if rank == processes - 1 else features[part.part.stop]
            peak, sent = _peak(part, parts, received, passed_on, linked, make_stepper, replay_buffer)
            costs.append(
                ProcessCost(
                    modules=part.part, seconds=sum(seconds[module] for module in part.part), peak=peak, sent=sent
                )
            )
    return costs


class _OnFakes(Neighbours):
    """Stands for the other processes: gives gradients without values, and counts what is sent.

    Args:
        before: the features that were passed on in the step before, which are under way until the next ones are; None
            for the last process.
    """

    def __init__(self, before: Tensor | None) -> None:
        self._before = before
        self.sent = 0

    def passed_on(self, features: Tensor) -> None:
        if self._before is not None:
            self._before = features
            self.sent += features.nbytes

    def send_gradient(self, stop_module: int, gradient: Tensor | None) -> None:
        self._gradient = gradient  # under way until the next one
        self.sent += 0 if gradient is None else gradient.nbytes

    def receive_gradient(self, stop_module: int) -> Tensor | None:
        assert self._before is not None
        return torch.empty_like(self._before)


def _peak(
    part: NetPart,
    parts: Sequence[MicroBatch],
    received: Tensor | None,
    passed_on: Tensor | None,
    linked: dict[tuple[int, int], Link],
    make_stepper: MakeStepper,
    replay_buffer: int | None,
) -> tuple[PeakMemory, int]:
    """The peak of a step, and the bytes that it sends."""
    images, labels = parts[0].images, parts[0].targets
    part.step(images, labels, features=received)  # makes the recompute plan before anything is counted
    stepper = stepper_with_state(part, make_stepper)
    known = known_tensors(part, stepper, images, labels)
    followed = sum(link.nbytes for (source, _), link in linked.items() if source == part.rank)
    following = sum(2 * link.nbytes for (_, follower), link in linked.items() if follower == part.rank)
    next_batch = 0 if received is None else received.nbytes  # its features may come meanwhile
    if replay_buffer is not None and received is not None:
        along = labels.nbytes + (images.nbytes if part.reads_images(part.part.start) else 0)
        next_batch = (1 + replay_buffer) * (next_batch + along)
    with LiveBytes(known=known, parameters=part.parameters()) as live:
        neighbours, sent = _OnFakes(None if passed_on is None else torch.empty_like(passed_on)), 0.0
        for one, times in with_times(parts):
            features = None if received is None else torch.empty_like(received)[: len(one.targets)]
            last = {"final": one.final, "on_complete": stepper.on_complete if one.final else None}
            step = part.step(one.images, one.targets, features=features, neighbours=neighbours, **last)
            del features
            before = neighbours.sent
            step.run()
            sent += times * (neighbours.sent - before)
        stepper.finish()
    if replay_buffer is not None and passed_on is not None and part.reads_images(part.part.stop):
        sent += sum(one.images.nbytes for one in parts)
    total = bytes_of(known) + live.peak + next_batch + followed + following
    return PeakMemory(activations=live.peak_activations + next_batch, total=total), round(sent) + followed

"""Peak memory, multiply-accumulates and predicted time of one training step, counted on fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from locallearn._engine.local_net import LocalNet
from locallearn._engine.micro_batches import micro_batches, refuse_single_image, with_times
from locallearn._engine.stepper import Stepper
from locallearn._torch import private_api
from locallearn._torch.device import mixed
from locallearn._torch.live_bytes import LiveBytes
from locallearn._torch.op_counter import Work

MakeStepper = Callable[[LocalNet], Stepper]

nesterov_sgd: MakeStepper = partial(
    Stepper, make_optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, fused=True)
)
"""The optimizer of all papers: one state tensor per parameter, all modules stepped together."""


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Largest number of bytes alive at any moment of a training step.

    Attributes:
        activations: of all tensors that forward and backward create, without gradients of parameters.
        total: of everything: also parameters, their gradients, buffers, optimizer state and the batch.
    """

    activations: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The predicted cost of a training step.

    Attributes:
        peak: bytes.
        macs: multiply-accumulates of all that runs.
        seconds: time of the step on the processor where the constants were measured. Use ratios between steps.
        work: counted work, by kind.
    """

    peak: PeakMemory
    macs: int
    seconds: float
    work: Mapping[str, float]


def peak_memory(
    net: LocalNet,
    batch: int,
    *,
    accumulate: int = 1,
    make_stepper: MakeStepper = nesterov_sgd,
    autocast: torch.dtype | None = None,
) -> PeakMemory:
    """Predict the peak of one step by running it on fake tensors; the network is not changed.

    Args:
        net: the network.
        batch: images in the batch.
        accumulate: number of micro-batches in it.
        make_stepper: makes the optimizer.
        autocast: dtype of mixed precision, or None for the parameters' own.
    """
    with prepared_step(net, batch, make_stepper, autocast, accumulate=accumulate) as step:
        return _measured(*step, accumulate, autocast)


def predict(
    net: LocalNet,
    batch: int,
    *,
    accumulate: int = 1,
    make_stepper: MakeStepper = nesterov_sgd,
    autocast: torch.dtype | None = None,
) -> Prediction:
    """Predict a step's memory, work and time by running it on fake tensors; the network is not changed.

    Time is a sum over operators: a constant for each call, for each byte read or written, and for each
    multiply-accumulate of convolutions or of matrix products. `benchmarks/plan.py` measures the constants. The sum
    ranks settings; it ignores caches, compiled code and the machine at hand.

    Args:
        net: the network.
        batch: images in the batch.
        accumulate: number of micro-batches in it.
        make_stepper: makes the optimizer.
        autocast: dtype of mixed precision, or None.
    """
    with prepared_step(net, batch, make_stepper, autocast, accumulate=accumulate) as step, Work() as work:
        peak = _measured(*step, accumulate, autocast, work)
    return Prediction(peak=peak, macs=work.macs, seconds=work.seconds, work=work.counts)


def measure(
    net: LocalNet, stepper: Stepper, images: Tensor, labels: Tensor, *, autocast: torch.dtype | None = None
) -> PeakMemory:
    """Run two training steps and count the live bytes of the second (the first one makes the optimizer's state)."""
    _measured(net, stepper, images, labels, 1, autocast)
    return _measured(net, stepper, images, labels, 1, autocast)


def _measured(
    net: LocalNet,
    stepper: Stepper,
    images: Tensor,
    labels: Tensor,
    accumulate: int,
    autocast: torch.dtype | None,
    work: Work | None = None,
) -> PeakMemory:
    """The peak of one step; the optimizers have their state. Of many micro-batches three run, and `work` counts all."""
    known = known_tensors(net, stepper, images, labels)
    with LiveBytes(known=known, parameters=net.parameters()) as live:
        for part, times in with_times(micro_batches(images, labels, accumulate)):
            if work is not None:
                work.times = times
            with mixed(images.device, autocast):
                on_complete = stepper.on_complete if part.final else None
                net.step(part.images, part.targets, final=part.final, on_complete=on_complete).run()
        stepper.finish()
    return PeakMemory(activations=live.peak_activations, total=bytes_of(known) + live.peak)


@contextmanager
def without_data(net: LocalNet, batch: int) -> Iterator[tuple[LocalNet, Tensor, Tensor]]:
    """A copy on fake tensors, in training mode, with images and labels. It shares the network's recompute plans."""
    with private_api.fake_mode() as mode:
        copy = private_api.fake_copy(net, mode).train()
        copy.recompute_plans = net.recompute_plans
        yield copy, *example_batch(copy, batch)


@contextmanager
def prepared_step(
    net: LocalNet, batch: int, make_stepper: MakeStepper, autocast: torch.dtype | None, *, accumulate: int = 1
) -> Iterator[tuple[LocalNet, Stepper, Tensor, Tensor]]:
    """All that a step on fake tensors needs: a copy of the network, a stepper, images and labels.

    The recompute plan is made, and optimizers have the state of a step in which all gradients are zero.
    """
    refuse_single_image(batch, accumulate, net.needs_several)
    with without_data(net, batch) as (net, images, labels):
        with mixed(images.device, autocast):
            part = micro_batches(images, labels, accumulate)[0]
            net.step(part.images, part.targets)  # makes the recompute plan before anything is counted
        yield net, stepper_with_state(net, make_stepper), images, labels


def stepper_with_state(net: LocalNet, make_stepper: MakeStepper) -> Stepper:
    """A stepper whose optimizers have the state of a step in which all gradients are zero."""
    stepper = make_stepper(net)
    for parameter in {p for module in net.part for p in net.parameters_of(module)}:
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    for optimizer in stepper.optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return stepper


def known_tensors(net: LocalNet, stepper: Stepper, images: Tensor, labels: Tensor) -> list[Tensor]:
    """What is there before a step: parameters, buffers, the optimizers' state, and the batch."""
    state = [
        value for optimizer in stepper.optimizers for values in optimizer.state.values() for value in values.values()
    ]
    return [t for t in (*net.parameters(), *net.buffers(), *state, images, labels) if isinstance(t, Tensor)]


def example_batch(net: LocalNet, batch: int) -> tuple[Tensor, Tensor]:
    """A batch of zeros with the size, type and memory format that suit the network."""
    reference = next(net.parameters())
    images = torch.zeros((batch, *net.chain.image_shape), device=reference.device, dtype=reference.dtype)
    if any(_is_channels_last(parameter) for parameter in net.parameters()):
        images = images.to(memory_format=torch.channels_last)
    kind = reference.dtype if net.label_shape else torch.long
    return images, torch.zeros((batch, *net.label_shape), device=reference.device, dtype=kind)


def _is_channels_last(tensor: Tensor) -> bool:
    return (
        tensor.dim() == 4
        and tensor.is_contiguous(memory_format=torch.channels_last)
        and not tensor.is_contiguous()  # a 1x1 convolution is both
    )


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory of some tensors; what several share counts once."""
    storages = {id(storage): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())

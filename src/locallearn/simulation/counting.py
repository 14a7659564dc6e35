"""The load of a network's training step: predicted on fake tensors, or its times measured on this machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._nn.ema import EmaCopy
from locallearn._planning.prediction import MakeStepper, example_batch, nesterov_sgd, prepared_step, without_data
from locallearn._torch.deep_copy import deep_copy
from locallearn._torch.device import mixed
from locallearn._torch.live_bytes import LiveBytes
from locallearn._torch.op_counter import Work
from locallearn._utils.errors import LocalLearnError
from locallearn.cost import Activity, Phase, PhaseRecorder
from locallearn.simulation.load import CopiedLayer, Load, ModuleLoad, PhaseLoad


@dataclass(frozen=True)
class _Counted:
    """A step on fake tensors: its phases with their bytes, the optimizer's seconds, and bytes of state by module."""

    phases: list[Phase]
    sizes: list[tuple[int, int]]
    update: float
    states: list[int]


def load_of(
    net: LocalNet, images: int, *, make_stepper: MakeStepper = nesterov_sgd, autocast: torch.dtype | None = None
) -> Load:
    """Count what a step asks for, on fake tensors and with predicted times; the network is not changed.

    Half of the images are counted too, which tells the time that does not depend on their number.

    Args:
        net: the network.
        images: images in the batch, at least 4.
        make_stepper: makes the optimizer.
        autocast: dtype of mixed precision, or None.

    Raises:
        LocalLearnError: there are fewer than 4 images.
    """
    if images < 4:
        raise LocalLearnError(f"images={images}: count a step of at least 4 images.")
    whole, half = (_counted(net, count, make_stepper, autocast) for count in (images, images // 2))
    trained = [sum(p.nbytes for p in net.parameters_of(m) if p.requires_grad) for m in range(len(net.partition))]
    modules = [
        ModuleLoad(
            name=net.chain.names[end],
            output=output,
            state=state,
            gradients=gradients,
            update=whole.update * gradients / sum(trained),
        )
        for end, output, state, gradients in zip(
            net.partition.ends, _outputs(net, autocast), whole.states, trained, strict=True
        )
    ]
    return Load(
        images=images,
        image=example_batch(net, 1)[0].nbytes,
        phases=tuple(_phases(whole, half, images)),
        modules=tuple(modules),
        copied=tuple(_copied(net)),
    )


def measured_times(
    net: LocalNet, images: int, *, steps: int = 5, autocast: torch.dtype | None = None
) -> dict[tuple[Activity, int], float]:
    """Run training steps on this machine; the median seconds of each activity of each module.

    Args:
        net: the network, on the device that is measured; it is not changed.
        images: images in the batch.
        steps: steps that count; two more come before them.
        autocast: dtype of mixed precision, or None.
    """
    copy = deep_copy(net).train()
    x, y = example_batch(copy, images)

    def clock() -> float:
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        return perf_counter()

    rows: list[dict[tuple[Activity, int], float]] = []
    for _ in range(steps + 2):
        with mixed(x.device, autocast):
            step = copy.step(x, y)
            recorder = PhaseRecorder(clock)
            recorder.run(copy, step)
        copy.zero_grad()
        row: defaultdict[tuple[Activity, int], float] = defaultdict(float)
        for phase in recorder.phases:
            row[phase.activity, phase.module] += phase.end - phase.start
        rows.append(row)
    return {what: median(row[what] for row in rows[2:]) for what in rows[-1]}


def _counted(net: LocalNet, images: int, make_stepper: MakeStepper, autocast: torch.dtype | None) -> _Counted:
    with prepared_step(net, images, make_stepper, autocast) as (copy, stepper, x, y):
        known = [*copy.parameters(), *copy.buffers(), x, y]
        with mixed(x.device, autocast), Work() as work, LiveBytes(known=known, parameters=copy.parameters()) as live:
            step = copy.step(x, y)
            recorder = PhaseRecorder(lambda: work.seconds, lambda: (live.take_peak(), live.activations))
            recorder.run(copy, step)
        with Work() as update:
            stepper.finish()
        optimizer_state = {p: state for optimizer in stepper.optimizers for p, state in optimizer.state.items()}
        states = []
        for module in range(len(copy.partition)):
            parts = (copy.local_modules[module], *{o.auxiliary: None for o in copy.objectives_of(module)})
            size = sum(buffer.nbytes for part in parts for buffer in part.buffers())
            for parameter in copy.parameters_of(module):
                size += parameter.nbytes * (2 if parameter.requires_grad else 1)
                size += sum(t.nbytes for t in optimizer_state.get(parameter, {}).values() if hasattr(t, "nbytes"))
            states.append(size)
    return _Counted(recorder.phases, recorder.sizes, update.seconds, states)


def _phases(whole: _Counted, half: _Counted, images: int) -> Iterator[PhaseLoad]:
    in_same_order = [(p.activity, p.module) for p in whole.phases] == [(p.activity, p.module) for p in half.phases]
    before = 0
    for number, (phase, (most, alive)) in enumerate(zip(whole.phases, whole.sizes, strict=True)):
        seconds = phase.end - phase.start
        per_image = seconds / images
        if in_same_order:
            seconds_of_half = half.phases[number].end - half.phases[number].start
            per_image = min(per_image, (seconds - seconds_of_half) / (images - images // 2))
        yield PhaseLoad(
            activity=phase.activity,
            module=phase.module,
            fixed=seconds - per_image * images,
            per_image=per_image,
            peak=(most - before) / images,
            change=(alive - before) / images,
        )
        before = alive


def _outputs(net: LocalNet, autocast: torch.dtype | None) -> list[float]:
    """Bytes of each module's output, for one image."""
    sizes = []
    with without_data(net, 2) as (copy, features, _), torch.no_grad(), mixed(features.device, autocast):
        for module in copy.local_modules:
            features = module(features)
            sizes.append(features.nbytes / 2)
    return sizes


def _copied(net: LocalNet) -> Iterator[CopiedLayer]:
    owners = {id(p): m for m, module in enumerate(net.local_modules) for p in module.parameters()}
    for objective in net.objectives:
        for part in objective.auxiliary.modules():
            if isinstance(part, EmaCopy) and (weights := list(part.sources[0].parameters())):
                size = sum(weight.nbytes for weight in weights)
                yield CopiedLayer(by=objective.last, of=owners[id(weights[0])], size=size)

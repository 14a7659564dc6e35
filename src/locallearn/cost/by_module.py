"""The bytes of a step, module by module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from locallearn._engine.local_net import LocalNet
from locallearn._engine.segment import segment_spans
from locallearn._planning.prediction import without_data
from locallearn._torch.device import mixed
from locallearn._torch.live_bytes import LiveBytes
from locallearn._torch.op_counter import Work
from locallearn.cost.phases import Activity, PhaseRecorder

_Sizes = tuple[Activity, int, int]
"""What a phase does, the most bytes alive in it, and those at its end."""


@dataclass(frozen=True, kw_only=True)
class ModuleBytes:
    """Bytes while one local module, or one graph segment of several, is trained.

    Attributes:
        first, last: the first and the last of these modules.
        before: activations alive when it begins: its input, and what unfinished objectives saved in earlier modules.
        saved: activations that its forward pass saves, with its output.
        auxiliary: the most that its auxiliary networks add to these.
        backward: the most that its own backward pass adds to these.
        peak: the most activations at any moment; a forward pass can need more than it saves.
        weights: parameters and buffers of the module and of the auxiliary networks that end there.
        gradients: gradients of these parameters, where they are trained.
    """

    first: int
    last: int
    before: int
    saved: int
    auxiliary: int
    backward: int
    peak: int
    weights: int
    gradients: int


def bytes_by_module(net: LocalNet, batch: int, *, autocast: torch.dtype | None = None) -> list[ModuleBytes]:
    """Count the bytes of a step by module, without training; the network is not changed.

    Args:
        net: the network.
        batch: images in the batch.
        autocast: dtype of mixed precision, or None.
    """
    with without_data(net, batch) as (copy, images, labels), mixed(images.device, autocast):
        step = copy.step(images, labels)
        known = [*copy.parameters(), *copy.buffers(), images, labels]
        with Work() as work, LiveBytes(known=known, parameters=copy.parameters()) as live:
            recorder = PhaseRecorder(lambda: work.seconds, lambda: (live.take_peak(), live.activations))
            recorder.run(copy, step)
    rows: list[ModuleBytes] = []
    before = 0
    for span, phases in _by_segment(segment_spans(net.objectives, net.part), recorder):
        rows.append(_row(net, span, _sizes(phases, before)))
        before = phases[-1][2] if phases else before
    return rows


def _by_segment(spans: Sequence[range], recorder: PhaseRecorder) -> Iterator[tuple[range, list[_Sizes]]]:
    """The modules of each graph segment, and the phases from its forward pass to that of the next one."""
    segment_of = {module: number for number, span in enumerate(spans) for module in span}
    segments: list[list[_Sizes]] = [[] for _ in spans]
    number = 0
    for phase, (most, alive) in zip(recorder.phases, recorder.sizes, strict=True):
        if phase.activity == "forward":
            number = segment_of[phase.module]
        segments[number].append((phase.activity, most, alive))
    return zip(spans, segments, strict=True)


def _sizes(phases: Sequence[_Sizes], before: int) -> dict[str, int]:
    """The bytes of one graph segment, of its phases and those alive before."""
    saved = next((alive for activity, _, alive in reversed(phases) if activity == "forward"), before)
    auxiliary = [most for activity, most, _ in phases if activity == "auxiliary"]
    backward = [most for activity, most, _ in phases if activity in ("backward", "recompute")]
    return {
        "before": before,
        "saved": saved - before,
        "auxiliary": max([saved, *auxiliary]) - saved,
        "backward": max([saved, *backward]) - saved,
        "peak": max((most for _, most, _ in phases), default=before),
    }


def _row(net: LocalNet, span: range, sizes: dict[str, int]) -> ModuleBytes:
    auxiliaries = [objective.auxiliary for module in span for objective in net.objectives_of(module)]
    parts = nn.ModuleList([*(net.local_modules[module] for module in span), *auxiliaries])
    return ModuleBytes(
        first=span[0],
        last=span[-1],
        weights=sum(tensor.nbytes for tensor in (*parts.parameters(), *parts.buffers())),
        gradients=sum(p.nbytes for p in parts.parameters() if p.requires_grad),
        **sizes,
    )

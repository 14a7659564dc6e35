"""One training step over time: which module runs when, and how many bytes are alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._planning.prediction import without_data
from locallearn._torch.device import mixed
from locallearn._torch.live_bytes import LiveBytes
from locallearn._torch.op_counter import Work
from locallearn.cost.phases import Phase, PhaseRecorder


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One training step, without its optimizer step, over predicted time.

    Seconds are those of `predict`: use them for comparisons.

    Attributes:
        seconds: predicted time after each operator.
        activations: bytes alive then, without gradients of parameters; the largest is the step's peak.
        phases: what runs, in order, without gaps.
        modules: number of local modules.
        spans: first and last module of each objective.
    """

    seconds: tuple[float, ...]
    activations: tuple[int, ...]
    phases: tuple[Phase, ...]
    modules: int
    spans: tuple[tuple[int, int], ...]


def timeline(net: LocalNet, batch: int, *, autocast: torch.dtype | None = None) -> Timeline:
    """Record one training step on fake tensors; the network is not changed.

    Args:
        net: the network.
        batch: images in the batch.
        autocast: dtype of mixed precision, or None.
    """
    with without_data(net, batch) as (copy, images, labels), mixed(images.device, autocast):
        step = copy.step(images, labels)
        known = [*copy.parameters(), *copy.buffers(), images, labels]
        with Work() as work, _Curve(work, known=known, parameters=copy.parameters()) as curve:
            recorder = PhaseRecorder(lambda: work.seconds)
            recorder.run(copy, step)
    return Timeline(
        seconds=tuple(curve.seconds),
        activations=tuple(curve.bytes),
        phases=tuple(recorder.phases),
        modules=len(net.partition),
        spans=tuple((objective.first, objective.last) for objective in net.objectives),
    )


class _Curve(LiveBytes):
    """Records the live bytes after each operator."""

    def __init__(self, work: Work, **of: Any) -> None:
        super().__init__(**of)
        self._work = work
        self.seconds: list[float] = []
        self.bytes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.seconds.append(self._work.seconds)
        self.bytes.append(self.activations)
        return result

"""One training step over time: which module runs when, and how many bytes are alive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from locallearn._engine.local_net import LocalNet
from locallearn._nn.checkpointed import Checkpointed
from locallearn._objectives.objective import Objective
from locallearn._planning.prediction import without_data
from locallearn._torch.device import mixed
from locallearn._torch.live_bytes import LiveBytes
from locallearn._torch.op_counter import Work

Activity = Literal["forward", "auxiliary", "backward", "recompute"]
"""What a module does: a forward pass; forward and backward of an auxiliary network, or of the classifier, that takes
its output; a backward pass; a second forward pass, for the backward pass."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A time in which one local module does one thing.

    Attributes:
        activity: what it does.
        module: index of the module.
        start, end: predicted seconds since the step began.
    """

    activity: Activity
    module: int
    start: float
    end: float


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
            recorder = _Recorder(work)
            step.on_segment = recorder.segment_ends
            with recorder.watching(copy):
                step.run()
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


class _Recorder:
    """Learns from hooks which module does what; a phase ends where the next one begins."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.phases: list[Phase] = []
        self._now: tuple[Activity, int] = ("forward", 0)
        self._start = 0.0
        self._is_forward = True

    def segment_ends(self) -> None:
        """The next layers that run do so for the first time."""
        self._is_forward = True

    @contextmanager
    def watching(self, net: LocalNet) -> Iterator[None]:
        """Hook into the layers and the auxiliary networks of a network, for one step."""
        with ExitStack() as hooks:
            for index, module in enumerate(net.local_modules):
                for layer in module.layers:
                    self._watch_layer(layer.once if isinstance(layer, Checkpointed) else layer, index, hooks)
            for objective in {id(o.auxiliary): o for o in net.objectives}.values():
                self._watch_auxiliary(objective, hooks)
            yield
        self._begin("forward", 0)

    def _watch_layer(self, layer: nn.Module, index: int, hooks: ExitStack) -> None:
        def begins(*_: object) -> None:
            self._begin("forward" if self._is_forward else "recompute", index)

        def ends(_: nn.Module, __: object, output: Tensor) -> None:
            if not self._is_forward:
                self._begin("backward", index)
            if output.requires_grad:
                output.register_hook(lambda _: self._begin("backward", index))

        hooks.callback(layer.register_forward_pre_hook(begins).remove)
        hooks.callback(layer.register_forward_hook(ends).remove)

    def _watch_auxiliary(self, objective: Objective, hooks: ExitStack) -> None:
        auxiliary = objective.auxiliary

        def begins(*_: object) -> None:
            self._is_forward = False
            self._begin("auxiliary", objective.last)

        def ends(after: Callable[[], None] = auxiliary.after_backward) -> None:
            after()
            self._begin("backward", objective.last)

        hooks.callback(auxiliary.register_forward_pre_hook(begins).remove)
        auxiliary.after_backward = ends

    def _begin(self, activity: Activity, module: int) -> None:
        """Begin a phase and end the present one; one without an operator does not count."""
        if (activity, module) == self._now:
            return
        if self._work.seconds > self._start:
            before, of = self._now
            if self.phases and (self.phases[-1].activity, self.phases[-1].module) == self._now:
                self._start = self.phases.pop().start
            self.phases.append(Phase(activity=before, module=of, start=self._start, end=self._work.seconds))
            self._start = self._work.seconds
        self._now = activity, module

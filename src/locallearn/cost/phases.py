"""The phases of a training step: which local module does what, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from locallearn._engine.local_net import LocalNet
from locallearn._engine.step import Step
from locallearn._nn.checkpointed import Checkpointed
from locallearn._objectives.objective import Objective

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


class PhaseRecorder:
    """Learns which module does what; a phase ends where the next one begins.

    Args:
        clock: the time.
        take_bytes: the most bytes alive since the last call, and those alive now.

    Attributes:
        phases: in order.
        sizes: for each phase the most bytes alive in it, and those alive at its end.
    """

    def __init__(self, clock: Callable[[], float], take_bytes: Callable[[], tuple[int, int]] = lambda: (0, 0)) -> None:
        self._clock, self._take_bytes = clock, take_bytes
        self.phases: list[Phase] = []
        self.sizes: list[tuple[int, int]] = []
        self._now: tuple[Activity, int] = ("forward", 0)
        self._start = clock()
        self._is_forward = True

    def run(self, net: LocalNet, step: Step) -> None:
        """Run a step of a network, and watch its layers and auxiliary networks meanwhile."""
        step.on_segment = self._segment_ends
        with ExitStack() as stack:
            for index, module in enumerate(net.local_modules):
                for layer in module.layers:
                    self._watch_layer(layer.once if isinstance(layer, Checkpointed) else layer, index, stack)
            for objective in {id(o.auxiliary): o for o in net.objectives}.values():
                self._watch_auxiliary(objective, stack)
            step.run()
        self._begin("forward", 0)

    def _segment_ends(self) -> None:
        """The next layers that run do so for the first time."""
        self._is_forward = True

    def _watch_layer(self, layer: nn.Module, index: int, stack: ExitStack) -> None:
        run = layer.forward

        def watched(*given: Tensor) -> Tensor:
            self._begin("forward" if self._is_forward else "recompute", index)
            output = run(*given)
            if not self._is_forward:
                self._begin("backward", index)
            if output.requires_grad:
                output.register_hook(lambda _: self._begin("backward", index))
            return output

        stack.enter_context(_replaced(layer, "forward", watched))  # forward hooks do not fire in a second run

    def _watch_auxiliary(self, objective: Objective, stack: ExitStack) -> None:
        auxiliary = objective.auxiliary

        def begins(*_: object) -> None:
            self._is_forward = False
            self._begin("auxiliary", objective.last)

        def ends(after: Callable[[], None] = auxiliary.after_backward) -> None:
            after()
            self._begin("backward", objective.last)

        stack.callback(auxiliary.register_forward_pre_hook(begins).remove)
        stack.enter_context(_replaced(auxiliary, "after_backward", ends))

    def _begin(self, activity: Activity, module: int) -> None:
        """Begin a phase and end the present one; one without an operator does not count."""
        if (activity, module) == self._now:
            return
        now = self._clock()
        if now > self._start:
            before, of = self._now
            most, alive = self._take_bytes()
            if self.phases and (self.phases[-1].activity, self.phases[-1].module) == self._now:
                self._start = self.phases.pop().start
                most = max(most, self.sizes.pop()[0])
            self.phases.append(Phase(activity=before, module=of, start=self._start, end=now))
            self.sizes.append((most, alive))
            self._start = now
        elif self.sizes:  # nothing ran, but something may have been freed since
            self.sizes[-1] = self.sizes[-1][0], self._take_bytes()[1]
        self._now = activity, module


@contextmanager
def _replaced(module: nn.Module, method: str, by: Callable[..., Any]) -> Iterator[None]:
    """Replace a method of one module."""
    before = vars(module).get(method)
    setattr(module, method, by)
    try:
        yield
    finally:
        if before is None:
            delattr(module, method)
        else:
            setattr(module, method, before)

"""Whole training steps captured as CUDA graphs: one launch instead of thousands."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from locallearn._engine.local_net import LocalNet
from locallearn._engine.stepper import Stepper
from locallearn._nn.checkpointed import Checkpointed
from locallearn._torch.device import mixed, random_state
from locallearn._utils.errors import LocalLearnError

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""From a function to one that repeats its work on the same memory; recording need not do the work."""

WARM_UP = 3
"""Plain steps before the capture, in which optimizers make their state and libraries choose their kernels."""


class CudaGraphs:
    """Records functions as CUDA graphs that share memory; replay them in the order of recording."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # other threads may go on to copy batches to the device
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            work()
        self._pool = self._pool or graph.pool()
        return graph.replay


@dataclass
class CapturedSteps:
    """Training steps on a CUDA GPU, captured once and replayed. Experimental: not yet measured on a GPU.

    A small network waits for kernel launches and Python. After a few plain steps, the forward pass and all backward
    passes are captured as one CUDA graph, and the optimizers' step as another. Between the two the losses are checked,
    so that a NaN is not stepped. The weights equal those of plain steps (AdamW's up to rounding: its learning rate has
    32 bits here). Batches of another shape than the first one run as plain steps.

    Args:
        net: the network, on a CUDA GPU.
        stepper: its optimizers.
        autocast: type of mixed precision, or None.
        record: records a function; by default as a CUDA graph.

    Raises:
        LocalLearnError: the network is not on a CUDA GPU; or, at the step that is captured, parts that draw random
            numbers are recomputed in the backward pass.
    """

    net: LocalNet
    stepper: Stepper
    _: KW_ONLY
    autocast: torch.dtype | None = None
    record: Record | None = None

    def __post_init__(self) -> None:
        device = next(self.net.parameters()).device
        if self.record is None and device.type != "cuda":
            raise LocalLearnError(f"steps are captured as CUDA graphs, but the network is on {device}: use a CUDA GPU.")
        if self.net.gradient_sharing is not None:
            raise LocalLearnError(
                "steps captured as CUDA graphs do not share gradients with other processes: leave cuda_graphs out."
            )
        if len(self.net.part) < len(self.net.partition):
            raise LocalLearnError(
                "steps captured as CUDA graphs do not exchange features with other processes: leave cuda_graphs out."
            )
        self._record = self.record or CudaGraphs()
        self._device = device
        self._shapes: tuple[torch.Size, torch.Size] | None = None
        self._warm_up = WARM_UP
        self._images = self._labels = self._losses = torch.empty(0)
        self._replays: tuple[Callable[[], None], Callable[[], None]] | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """One training step: `net.backward` and the optimizers'.

        Args:
            images: (batch, channels, height, width).
            labels: (batch,) class indices, or whatever the loss takes.

        Returns:
            One loss per objective, detached and unweighted, of shape (objectives,).
        """
        self.net.check(images, labels)
        shapes = images.shape, labels.shape
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            return self._plain(images, labels)
        if self._warm_up:
            self._warm_up -= 1
            return self._watched(images, labels) if self._warm_up == 0 else self._plain(images, labels)
        if self._replays is None:
            self._replays = self._captured(images, labels)
        backward, finish = self._replays
        self._images.copy_(images)
        self._labels.copy_(labels)
        backward()
        losses = self._losses.clone()
        self.net.finish_step(losses, self._completed)
        finish()
        return losses

    @property
    def _completed(self) -> range:
        """Modules for which `on_complete` was called when a backward pass ends."""
        return range(0 if self.stepper.on_complete is None else len(self.net.partition))

    def _plain(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._precision():
            losses = self.net.unchecked_backward(images, labels, on_complete=self.stepper.on_complete)
        self.net.finish_step(losses, self._completed)
        self.stepper.finish()
        return losses

    def _watched(self, images: Tensor, labels: Tensor) -> Tensor:
        """A plain step; refuses random numbers that a captured step could not replay."""
        before = random_state(self._device)
        losses = self._plain(images, labels)
        if not _equal(random_state(self._device), before) and self._recomputes(images, labels):
            raise LocalLearnError(
                "captured steps cannot draw the same random numbers twice, but parts of this network that draw some"
                " (dropout, say) are recomputed in the backward pass: train it without CUDA graphs."
            )
        return losses

    def _recomputes(self, images: Tensor, labels: Tensor) -> bool:
        with self._precision():
            plan = self.net.step(images, labels).plan
        parts = (*self.net.local_modules, *(objective.auxiliary for objective in self.net.objectives))
        return any(isinstance(layer, Checkpointed) for part in parts for layer in part.modules()) or (
            plan is not None and any(policy.blocks or policy.output for policy in (*plan.segments, *plan.objectives))
        )

    def _captured(self, images: Tensor, labels: Tensor) -> tuple[Callable[[], None], Callable[[], None]]:
        self._images, self._labels = images.clone(), labels.clone()
        self.stepper.make_capturable(self._device)

        def backward() -> None:
            on_complete = self.stepper.on_complete
            with self._precision():
                self._losses = self.net.unchecked_backward(self._images, self._labels, on_complete=on_complete)

        return self._record(backward), self._record(self.stepper.finish)

    def _precision(self) -> AbstractContextManager[object]:
        return mixed(self._device, self.autocast)


def _equal(state: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(value is other[name] or torch.equal(value, other[name]) for name, value in state.items())

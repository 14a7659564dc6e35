"""A graph segment: neighbouring modules between two borders of objectives, and their autograd graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._chain.local_module import LocalModule
from locallearn._nn.checkpointed import Checkpointed
from locallearn._objectives.objective import Objective
from locallearn._recompute.policy import STORE_ALL, RecomputePolicy
from locallearn._recompute.tape import CheckpointTape, GradientRoot, RunState


def segment_spans(objectives: Iterable[Objective], part: range) -> list[range]:
    """The modules of each graph segment: cut before every objective's first module and after its last one.

    Args:
        objectives: the objectives.
        part: the modules to be cut.
    """
    borders = {border for objective in objectives for border in (objective.first, objective.last + 1)}
    borders = {border for border in borders if border in part} | {part.start, part.stop}
    return [range(first, end) for first, end in pairwise(sorted(borders))]


class GraphSegment:
    """Neighbouring modules and their graph, from a detached leaf: one forward, one backward per distinct stop module.

    The objectives over a segment differ in where their gradient ends: their first module, called their stop module. The
    gradient of a stop module before this segment goes through the graph to the leaf in a call of its own, since it must
    reach the modules of its own objectives and no others. Gradients of parameters need no such care: they are computed
    once, from the sum over stop modules, when the last one has come.

    Args:
        modules: the modules.
        span: their indices.
        stop_modules: first modules of the objectives over them; `backward` takes them out, one by one.
        features: the input, detached.
        policy: what the backward pass recomputes; its output only where all objectives over them span just these
            modules.

    Attributes:
        output: what the last module gives.
        trains: whether the output has a gradient.
        drops_output: whether the backward pass frees the output, which `output_again` then computes.
    """

    def __init__(
        self,
        modules: Sequence[LocalModule],
        span: range,
        stop_modules: set[int],
        features: Tensor,
        policy: RecomputePolicy = STORE_ALL,
    ) -> None:
        self.span = span
        self.stop_modules = stop_modules
        self._modules = modules
        self._parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self._passes_on = min(stop_modules) < span.start
        self._leaf = features.requires_grad_() if self._passes_on else features
        self._policy = policy
        self._tape = CheckpointTape(policy.saving)
        layers = [layer for module in modules for layer in module.layers]
        checkpointed = any(isinstance(layer, Checkpointed) for layer in layers)
        on_tape = len(stop_modules) == 1 and (checkpointed or (policy.blocks and len(layers) > 1))
        self._runs_again = bool(policy.blocks) and not on_tape
        self.drops_output = bool(policy.output and self._parameters) and not (on_tape or self._runs_again)
        again = self._runs_again or self.drops_output
        self._state = state = RunState(nn.ModuleList(modules), self._leaf) if again else None
        if on_tape:
            self.output = self._run_on_tape()
        elif state is not None and self._runs_again:
            self.output = state.run_without_graph(self._run, self._leaf)
        else:
            with nullcontext() if state is None else state.first_run(), policy.saving():
                self.output = self._run(self._leaf)
        has_graph = not (on_tape or self._runs_again)
        self.trains = self.output.requires_grad if has_graph else bool(self._leaf.requires_grad or self._parameters)
        self._to_leaf: dict[int, Tensor] = {}
        self._sum: Tensor | None = None

    def output_again(self) -> Tensor:
        """The output once more, after the backward pass and before any parameter is stepped."""
        assert self._state is not None
        with torch.enable_grad(), self._state.another_run(self._leaf, last=True), self._policy.saving():  # as the first
            return self._run(self._leaf).detach()

    def _run(self, features: Tensor) -> Tensor:
        for module in self._modules:
            features = module(features)
        return features

    def _run_on_tape(self) -> Tensor:
        """Run layer by layer; each keeps its input alone."""
        features = self._leaf
        for module in self._modules:
            if module.begins_in_place:
                features = features.clone()
            for layer in module.layers:
                once = layer.once if isinstance(layer, Checkpointed) else layer
                features = self._tape.call(once, once, features)
        return features

    def receive(self, stop_module: int, gradient: Tensor | None) -> None:
        """Add a gradient of the output that is to end at a stop module."""
        if gradient is None:
            return
        if stop_module < self.span.start:
            self._to_leaf[stop_module] = _added(self._to_leaf.get(stop_module), gradient)
        else:
            self._sum = _added(self._sum, gradient)

    def backward(self, stop_module: int) -> Tensor | None:
        """Send the whole gradient of a stop module through the graph.

        The call for the last stop module adds to the parameters' gradients and frees the graph.

        Returns:
            The gradient of the input, or None where the stop module is in this segment or no gradient came.
        """
        self.stop_modules.remove(stop_module)
        incoming = [self._to_leaf.pop(stop_module)] if stop_module in self._to_leaf else []
        if not self.stop_modules and self._sum is None:
            if incoming:
                self._last_root(incoming).backward()
                self._tape.unwind()
            return self._take_leaf_gradient()
        if incoming:
            self._sum = _added(self._sum, incoming[0])
            self._root(incoming).backward(inputs=[self._leaf], retain_graph=not self._runs_again)
        gradient = self._take_leaf_gradient()
        if not self.stop_modules:
            summed, self._sum = [self._sum], None
            if self._parameters:
                self._last_root(summed).backward(inputs=self._parameters if self._passes_on else None)
                self._tape.unwind()
        return gradient

    def _root(self, incoming: list[Any], *, last: bool = False) -> Tensor:
        """The root of the stored graph, or of one that is recomputed for this call."""
        return GradientRoot.apply(self._run_again(last) if self._runs_again else self.output, incoming)

    def _last_root(self, incoming: list[Any]) -> Tensor:
        """The root for the last call, after which nobody needs the output."""
        root = self._root(incoming, last=True)
        self.output = self._leaf.new_empty(0)
        return root

    def _run_again(self, last: bool) -> Tensor:
        assert self._state is not None
        return self._state.run_again(self._run, self._leaf, self._policy.saving, self.output, last=last)

    def _take_leaf_gradient(self) -> Tensor | None:
        if not self._passes_on:
            return None  # the images may have a gradient of the user's own
        gradient, self._leaf.grad = self._leaf.grad, None
        return gradient


def _added(sum_so_far: Tensor | None, gradient: Tensor) -> Tensor:
    return gradient if sum_so_far is None else sum_so_far + gradient

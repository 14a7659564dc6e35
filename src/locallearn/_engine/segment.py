"""Neighbouring modules between two borders of objectives: run forward once, backward once for each border behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._chain.local_module import LocalModule
from locallearn._nn.checkpointed import Recomputed
from locallearn._objectives.objective import Objective
from locallearn._recompute.policy import KEEP_ALL, Thrift
from locallearn._recompute.tape import Seed, Surroundings, Tape


def stretches(objectives: Iterable[Objective]) -> list[range]:
    """Modules cut wherever an objective begins, and behind the modules where one ends."""
    borders = {border for objective in objectives for border in (objective.first, objective.last + 1)}
    return [range(first, behind) for first, behind in pairwise(sorted(borders))]


class Stretch:
    """A stretch of modules and its graph, from a detached leaf.

    The objectives over it differ in where their gradient ends: their first module, called their role here. The gradient
    of a role that goes on goes through the graph to the leaf in a call of its own, since it must reach the modules
    before that are its own and no others. Gradients of parameters need no such care, so they are found once, from the
    sum over roles, when the last role has come.

    Args:
        modules: the modules.
        span: their indices.
        roles: first modules of the objectives over them; those that have come are taken out.
        features: their input, detached.
        thrift: what is computed again in the backward pass.

    Attributes:
        output: what the last module gives.
        trains: whether it has a gradient.
    """

    def __init__(
        self, modules: Sequence[LocalModule], span: range, roles: set[int], features: Tensor, thrift: Thrift = KEEP_ALL
    ) -> None:
        self.span = span
        self.roles = roles
        self._modules = modules
        self._parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self._leaf = features.requires_grad_() if min(roles) < span.start else features
        self._thrift = thrift
        self._tape = Tape(thrift.remaking)
        self._surroundings: Surroundings | None = None
        layers = [layer for module in modules for layer in module.layers]
        recomputed = any(isinstance(layer, Recomputed) for layer in layers)
        on_tape = len(roles) == 1 and (recomputed or (thrift.rerun and len(layers) > 1))
        if on_tape:
            self.output = self._on_tape()
        elif thrift.rerun:
            self._surroundings = Surroundings(features.device)
            with torch.no_grad():
                self.output = self._run(self._leaf)
        else:
            with thrift.remaking():
                self.output = self._run(self._leaf)
        has_graph = not (on_tape or thrift.rerun)
        self.trains = self.output.requires_grad if has_graph else bool(self._leaf.requires_grad or self._parameters)
        self._going_on: dict[int, Tensor] = {}
        self._sum: Tensor | None = None

    def _run(self, features: Tensor) -> Tensor:
        for module in self._modules:
            features = module(features)
        return features

    def _on_tape(self) -> Tensor:
        """Run layer by layer, of which each keeps its input alone."""
        features = self._leaf
        for module in self._modules:
            if module.begins_in_place:
                features = features.clone()
            for layer in module.layers:
                runs = layer.once if isinstance(layer, Recomputed) else layer
                features = self._tape.call(runs, runs, features)
        return features

    def receive(self, role: int, gradient: Tensor | None) -> None:
        """Take a gradient of the output for a role; those of one role add up."""
        if gradient is None:
            return
        if role < self.span.start:
            self._going_on[role] = _added(self._going_on.get(role), gradient)
        else:
            self._sum = _added(self._sum, gradient)

    def backward(self, role: int) -> Tensor | None:
        """Send a role's whole gradient through; the last role's call adds to the parameters' and frees the graph.

        Returns:
            The gradient of the input, or None where the role ends here or there is none.
        """
        self.roles.remove(role)
        box = [self._going_on.pop(role)] if role in self._going_on else []
        if not self.roles and self._sum is None:
            if box:
                self._last_root(box).backward()
                self._tape.unwind()
            return self._gradient_of_leaf()
        if box:
            self._sum = _added(self._sum, box[0])
            self._root_for_leaf(box).backward(inputs=[self._leaf], retain_graph=self._surroundings is None)
        found = self._gradient_of_leaf()
        if not self.roles:
            box, self._sum = [self._sum], None
            if self._parameters:
                self._last_root(box).backward(inputs=self._parameters if self._leaf.requires_grad else None)
                self._tape.unwind()
        return found

    def _root_for_leaf(self, box: list[Any]) -> Tensor:
        """The root of a graph that stays, or of one that was made for this alone."""
        return Seed.apply(self.output if self._surroundings is None else self._run_again(), box)

    def _last_root(self, box: list[Any]) -> Tensor:
        """The root of the graph for the last time: the output is needed no more."""
        root = self._root_for_leaf(box)
        self.output = self._leaf.new_empty(0)
        return root

    def _run_again(self) -> Tensor:
        assert self._surroundings is not None
        part = nn.ModuleList(self._modules)
        return self._surroundings.rerun(self._run, part, self._leaf, self._thrift.remaking, self.output)

    def _gradient_of_leaf(self) -> Tensor | None:
        found, self._leaf.grad = self._leaf.grad, None
        return found


def _added(sum_so_far: Tensor | None, gradient: Tensor) -> Tensor:
    return gradient if sum_so_far is None else sum_so_far + gradient

"""Neighbouring modules between two borders of objectives: run forward once, backward once for each border behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from locallearn._local_module import LocalModule
from locallearn._objectives import Objective


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
    """

    def __init__(self, modules: Sequence[LocalModule], span: range, roles: set[int], features: Tensor) -> None:
        self.span = span
        self.roles = roles
        self._parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self._leaf = features.requires_grad_() if min(roles) < span.start else features
        for module in modules:
            features = module(features)
        self.output = features
        self._going_on: dict[int, Tensor] = {}
        self._sum: Tensor | None = None

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
        if not self.roles and self._sum is None:
            return self._backward_to_all(role)
        found = None
        if (gradient := self._going_on.pop(role, None)) is not None:
            found = self._backward_to_leaf(gradient)
            self._sum = _added(self._sum, gradient)
            del gradient
        if not self.roles:
            self._backward_to_parameters()
        return found

    def _backward_to_all(self, role: int) -> Tensor | None:
        output, box = self._release(), [self._going_on.pop(role, None)]
        if box[0] is None:
            return None
        _Seed.apply(output, box).backward()
        return self._gradient_of_leaf()

    def _backward_to_leaf(self, gradient: Tensor) -> Tensor | None:
        _Seed.apply(self.output, [gradient]).backward(inputs=[self._leaf], retain_graph=True)
        return self._gradient_of_leaf()

    def _backward_to_parameters(self) -> None:
        output, box = self._release(), [self._sum]
        self._sum = None
        if self._parameters:
            _Seed.apply(output, box).backward(inputs=self._parameters if self._leaf.requires_grad else None)

    def _gradient_of_leaf(self) -> Tensor | None:
        found, self._leaf.grad = self._leaf.grad, None
        return found

    def _release(self) -> Tensor:
        output, self.output = self.output, self._leaf.new_empty(0)
        return output


def _added(sum_so_far: Tensor | None, gradient: Tensor) -> Tensor:
    return gradient if sum_so_far is None else sum_so_far + gradient


class _Seed(torch.autograd.Function):
    """The root of a backward pass that begins with a given gradient.

    Given to `backward` directly, the gradient would be kept until the pass ends; out of its box it is freed once used.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, box: list[Tensor | None]) -> Tensor:
        ctx.box = box
        return output.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, None]:
        return ctx.box.pop(), None

"""The nodes of a graph through which the images flow, and the places where a single tensor passes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from locallearn._fx.tracer import BATCHES, CannotTraceError, inside, values_of


class DataPath:
    """Forward code in order, from the images to its output.

    Attributes:
        module: the module whose code it is.
        nodes: what is computed from the images, the images first; constants and a module's own tensors are left out.
        output: the node of `nodes` that the code returns.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self.module = module
        self._kinds: dict[fx.Node, str] = {}
        returned = next(node for node in graph.nodes if node.op == "output").args[0]
        if not isinstance(returned, fx.Node) or "values" not in returned.meta:
            kind = getattr(getattr(returned, "target", type(returned)), "__name__", "tuple")
            raise CannotTraceError(f"it returns a {kind}, not one tensor")
        self.output = returned
        found = [node for node in graph.nodes if node.op != "output" and self._kind(node) in ("data", "count")]
        needed = {returned}
        for node in reversed(found):
            if node in needed or _writes(node):
                needed.update(node.all_input_nodes)
                needed.add(node)
        self.nodes = [node for node in found if node in needed or node.op == "placeholder"]

    def _kind(self, node: fx.Node) -> str:
        """`data`, computed from the images; `constant`; `count`, the number of images; `source`, the module's own."""
        if node not in self._kinds:
            self._kinds[node] = self._found_kind(node)
        return self._kinds[node]

    def _found_kind(self, node: fx.Node) -> str:
        values = values_of(node)
        if node.op in ("placeholder", "call_module"):
            return "data"
        if _is_plain(values[0]) and type(values[0]) is type(values[1]) and values[0] == values[1]:
            return "constant"
        if node.op == "get_attr" or all(self._kind(found) in ("source", "constant") for found in node.all_input_nodes):
            return "source"
        return "count" if type(values[0]) is int and values == BATCHES else "data"

    def is_constant(self, node: fx.Node) -> bool:
        """Whether it is a number or several, known before training."""
        return self._kind(node) == "constant"

    def is_source(self, node: fx.Node) -> bool:
        """Whether it is computed from the module's own tensors alone."""
        return self._kind(node) == "source"

    def is_count(self, node: fx.Node) -> bool:
        """Whether it is the number of images."""
        return self._kind(node) == "count"

    def bears_weights(self, node: fx.Node) -> bool:
        """Whether parameters take part in this very node."""
        if node.op == "call_module":
            return any(True for _ in self.submodule(node).parameters())
        return any(self._is_weight(found) for found in node.all_input_nodes if self.is_source(found))

    def _is_weight(self, node: fx.Node) -> bool:
        if node.op == "get_attr":
            owner, _, name = inside(str(node.target)).rpartition(".")
            return name in self.module.get_submodule(owner)._parameters
        return any(self._is_weight(found) for found in node.all_input_nodes)

    def submodule(self, node: fx.Node) -> nn.Module:
        """The module that a node calls."""
        return self.module.get_submodule(inside(str(node.target)))

    def calls(self, path: str) -> list[int]:
        """Where a module is called."""
        return [i for i, node in enumerate(self.nodes) if node.op == "call_module" and inside(str(node.target)) == path]

    @cached_property
    def _last_use(self) -> list[int]:
        """For each node the place of its last user."""
        place = {node: index for index, node in enumerate(self.nodes)}
        last = [max((place[user] for user in node.users if user in place), default=-1) for node in self.nodes]
        last[place[self.output]] = len(self.nodes)
        return last

    def passing(self, place: int) -> list[fx.Node]:
        """What is computed up to a place and used behind it; the number of images does not count."""
        nodes = self.nodes[: place + 1]
        return [node for i, node in enumerate(nodes) if self._last_use[i] > place and not self.is_count(node)]

    def cut_tensor(self, place: int) -> fx.Node | None:
        """The one tensor that passes behind a place, if it is one."""
        found = self.passing(place)
        return found[0] if len(found) == 1 and isinstance(values_of(found[0])[0], Tensor) else None

    def users_after(self, node: fx.Node, place: int) -> list[fx.Node]:
        """The nodes behind a place that use a node, in order."""
        return [user for user in self.nodes[place + 1 :] if node in user.all_input_nodes]

    def branches(self) -> bool:
        """Whether some weights stand in a branch beside another path from the images to the output."""
        return any(
            self.bears_weights(node) and (self.cut_tensor(place) is None or self.cut_tensor(place - 1) is None)
            for place, node in enumerate(self.nodes)
            if node.op == "call_module"
        )


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, int | float | bool | torch.Size)


def _writes(node: fx.Node) -> bool:
    """Whether a node may matter without anybody using what it gives, since it writes on what it gets."""
    return node.op == "call_module" or (node.op == "call_method" and str(node.target).endswith("_"))

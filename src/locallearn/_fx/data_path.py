"""The nodes of a graph that depend on the images, and the indices after which a single tensor passes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from locallearn._fx.tracer import BATCHES, CannotTraceError, module_path, values_of
from locallearn._nn.outputs import main_output


class DataPath:
    """The nodes that depend on the images, in order of execution.

    Attributes:
        module: the module whose code was traced.
        nodes: the images, then all that is computed from them; constants and the module's own tensors are left out.
        output: the node of `nodes` that the code returns; of several tensors, `logits` or the first.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self.module = module
        self._kinds: dict[fx.Node, str] = {}
        returned: Any = next(node for node in graph.nodes if node.op == "output").args[0]
        if isinstance(returned, fx.Node) and "values" not in returned.meta:  # fx calls the class of an output
            returned = returned.target(*returned.args, **returned.kwargs)  # pyright: ignore[reportCallIssue]
        self.output: fx.Node = main_output(returned, fx.Node)
        if self.output is None:
            kind = type(returned).__name__.removeprefix("immutable_")
            raise CannotTraceError(f"it returns a {kind}, not one tensor")
        candidates = [node for node in graph.nodes if "values" in node.meta and self._kind(node) in ("data", "count")]
        needed = {self.output}
        for node in reversed(candidates):
            if node in needed or self._has_effect(node):
                needed.update(node.all_input_nodes)
                needed.add(node)
        self.nodes = [node for node in candidates if node in needed or node.op == "placeholder"]

    def _kind(self, node: fx.Node) -> str:
        """`data`, computed from the images; `constant`; `count`, the number of images; `source`, the module's own."""
        if node not in self._kinds:
            self._kinds[node] = self._compute_kind(node)
        return self._kinds[node]

    def _compute_kind(self, node: fx.Node) -> str:
        values = values_of(node)
        if node.op in ("placeholder", "call_module"):
            return "data"
        if _is_number(values[0]) and type(values[0]) is type(values[1]) and values[0] == values[1]:
            return "constant"
        if node.op == "get_attr" or all(self._kind(x) in ("source", "constant") for x in node.all_input_nodes):
            return "source"
        return "count" if type(values[0]) is int and values == BATCHES else "data"

    def unused_heads(self) -> list[str]:
        """Modules with weights that run, but whose outputs the result does not use."""
        ran = [node for node in self._kinds if node.op == "call_module" and self.uses_parameters(node)]
        return [module_path(node) for node in ran if node not in self.nodes]

    def _has_effect(self, node: fx.Node) -> bool:
        """Whether a node matters even where nothing uses its output: it writes on its arguments, or is a module.

        Modules with weights are an exception: these are heads whose output the caller does not use.
        """
        return node.meta["writes"] or (node.op == "call_module" and not self.uses_parameters(node))

    def is_constant(self, node: fx.Node) -> bool:
        """Whether its value is numbers that are the same for any batch."""
        return self._kind(node) == "constant"

    def is_source(self, node: fx.Node) -> bool:
        """Whether it is computed from the module's own tensors alone."""
        return self._kind(node) == "source"

    def is_count(self, node: fx.Node) -> bool:
        """Whether it is the number of images."""
        return self._kind(node) == "count"

    def uses_parameters(self, node: fx.Node) -> bool:
        """Whether this node itself uses parameters."""
        if node.op == "call_module":
            return any(True for _ in self.submodule(node).parameters())
        return any(self._is_weight(argument) for argument in node.all_input_nodes if self.is_source(argument))

    def _is_weight(self, node: fx.Node) -> bool:
        if node.op == "get_attr":
            owner, _, name = module_path(node).rpartition(".")
            return name in self.module.get_submodule(owner)._parameters
        return any(self._is_weight(argument) for argument in node.all_input_nodes)

    def submodule(self, node: fx.Node) -> nn.Module:
        """The module that a node calls."""
        return self.module.get_submodule(module_path(node))

    def calls(self, path: str) -> list[int]:
        """Indices of a module's calls."""
        return [i for i, node in enumerate(self.nodes) if node.op == "call_module" and module_path(node) == path]

    @cached_property
    def _last_use(self) -> list[int]:
        """For each node the index of its last user."""
        index_of = {node: index for index, node in enumerate(self.nodes)}
        last = [max((index_of[user] for user in node.users if user in index_of), default=-1) for node in self.nodes]
        last[index_of[self.output]] = len(self.nodes)
        return last

    def live_after(self, index: int) -> list[fx.Node]:
        """Nodes up to an index whose values are used after it; the number of images does not count."""
        nodes = self.nodes[: index + 1]
        return [node for i, node in enumerate(nodes) if self._last_use[i] > index and not self.is_count(node)]

    def cut_tensor(self, index: int) -> fx.Node | None:
        """The single tensor that is used after an index, or None where there are several values, or none."""
        live = self.live_after(index)
        return live[0] if len(live) == 1 and isinstance(values_of(live[0])[0], Tensor) else None

    def _passes_one(self, index: int) -> bool:
        """Whether one value is used after an index, of whose tensors one counts."""
        live = self.live_after(index)
        return len(live) == 1 and main_output(values_of(live[0])[0]) is not None

    def cuts(self, start: int, stop: int) -> list[int]:
        """Indices from `start` to before `stop` after which a single tensor passes."""
        return [index for index in range(start, stop) if self.cut_tensor(index) is not None]

    def users_after(self, node: fx.Node, index: int) -> list[fx.Node]:
        """Users of a node after an index, in order."""
        return [user for user in self.nodes[index + 1 :] if node in user.all_input_nodes]

    def has_weights_in_a_branch(self) -> bool:
        """Whether a module with parameters is on one of several parallel paths from the images to the output."""
        return any(
            self.uses_parameters(node) and not (self._passes_one(index) and self._passes_one(index - 1))
            for index, node in enumerate(self.nodes)
            if node.op == "call_module"
        )


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_number(part) for part in value)
    return value is None or isinstance(value, int | float | bool | torch.Size)

"""Which modules of a network are its blocks: those with a branch, or small groups of single layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from locallearn._fx.data_path import DataPath
from locallearn._fx.tracer import Bind, CannotTraceError, alone, module_path, trace_forward, values_of
from locallearn._nn.layer_types import NORMS


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises, or has a weight for each channel, and so belongs to the layer before it."""
    return isinstance(module, (*NORMS, nn.PReLU))


def is_single_layer(module: nn.Module) -> bool:
    """Whether a module is one layer, a convolution for instance, so that no blocks can be inside."""
    holds = isinstance(module, (*CONTAINERS, nn.TransformerEncoder))
    own = type(module).__module__.startswith("torch.nn") and not holds
    return own or is_norm(module) or not any(has_weights(child) for child in module.children())


def has_weights(module: nn.Module) -> bool:
    """Whether a module has parameters."""
    return any(True for _ in module.parameters())


CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class BlockFinder:
    """Finds the blocks of a network.

    A module whose own code has a branch with weights, as residual blocks have, is a block, and so are all others of
    its class. A module that runs only single layers in a sequence (a stem, a transition) is a block too where there
    are blocks with a branch; in other networks only if its class is used more than once and is no bare
    `nn.Sequential`. The search goes into all other modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.class_counts = Counter(type(module) for module in model.modules())
        self.branching: set[type[nn.Module]] = set()
        self._paths: dict[str, DataPath | None] = {}

    def find(self, arguments: tuple[torch.Tensor, ...]) -> list[str]:
        """Names of the blocks in order; none is inside another.

        Raises:
            CannotTraceError: the network's own code cannot be traced.
        """
        while True:
            known = len(self.branching)
            blocks = self._blocks_in("", self.model, (arguments, alone))
            if len(self.branching) == known:
                return list(dict.fromkeys(blocks))

    def finds_parts(self) -> bool:
        """Whether a branch was around a single module, `x + part(x)`, so that several of these make a block."""
        inside: dict[type[nn.Module], int] = {}
        for part in self.model.modules():
            if type(part) in self.branching:
                inside[type(part)] = max(inside.get(type(part), 0), sum(map(has_weights, part.children())))
        return 1 in inside.values()

    def _blocks_in(self, name: str, module: nn.Module, call: _Call) -> list[str]:
        is_block = type(module) in self.branching and type(module) not in CONTAINERS
        if name and (is_single_layer(module) or is_block):
            return [name]
        path = self._data_path(name, module, call)
        if path is None:
            return [name]
        if name and path.has_weights_in_a_branch():
            self.branching.add(type(module))
            return [name]
        blocks: list[str] = []
        for node in path.nodes:
            if node.op == "call_module" and has_weights(part := path.submodule(node)):
                part_name = ".".join(part for part in (name, module_path(node)) if part)
                inner = _call_of(path, node)
                blocks += [part_name] if inner is None else self._blocks_in(part_name, part, inner)
        return [name] if name and self._is_group(module, blocks) else blocks

    def _data_path(self, name: str, module: nn.Module, call: _Call) -> DataPath | None:
        """The module's own code, or None where it cannot be traced."""
        if name not in self._paths:
            try:
                self._paths[name] = DataPath(module, trace_forward(module, call[0], lambda _: False, call[1]))
            except CannotTraceError:
                if not name:
                    raise
                self._paths[name] = None
        return self._paths[name]

    def _is_group(self, module: nn.Module, blocks: list[str]) -> bool:
        """Whether a module that runs these in a sequence is a block itself."""
        if not all(is_single_layer(self.model.get_submodule(block)) for block in blocks):
            return False
        return bool(self.branching) or (type(module) is not nn.Sequential and self.class_counts[type(module)] > 1)


_Call = tuple[tuple[torch.Tensor, ...], Bind]
"""The tensor that a module takes, for each batch size, and all of its arguments."""


def _call_of(path: DataPath, node: fx.Node) -> _Call | None:
    """How a node calls a module; None where it gives it anything besides one tensor and constants."""
    takes = [argument for argument in node.all_input_nodes if not path.is_constant(argument)]
    if len(takes) != 1 or not isinstance(values_of(takes[0])[0], torch.Tensor):
        return None

    def bind(x: Any) -> Any:
        arguments: Any = (node.args, dict(node.kwargs))
        return map_arg(arguments, lambda argument: x if argument is takes[0] else values_of(argument)[0])

    return values_of(takes[0]), bind


def ancestors(names: list[str]) -> set[str]:
    """Names of all modules that hold one of these."""
    return {name[:i] for name in names for i, letter in enumerate(name) if letter == "."}

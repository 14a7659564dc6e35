"""Which modules inside a network are units: blocks with a branch, or small groups of plain layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import nn

from locallearn._fx.data_path import DataPath
from locallearn._fx.tracer import CannotTraceError, inside, trace_forward, values_of
from locallearn._nn.layer_types import NORMS

Arguments = tuple[torch.Tensor, ...]


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises (or has a weight for each channel) and so goes with the layer before it."""
    return isinstance(module, (*NORMS, nn.PReLU))


def is_plain(module: nn.Module) -> bool:
    """Whether a module is one layer in itself, a convolution, say, and nothing is to be looked for in it."""
    holds = isinstance(module, (*CONTAINERS, nn.TransformerEncoder))
    own = type(module).__module__.startswith("torch.nn") and not holds
    return own or is_norm(module) or not any(has_weights(child) for child in module.children())


def has_weights(module: nn.Module) -> bool:
    """Whether a module has parameters."""
    return any(True for _ in module.parameters())


CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class BlockFinder:
    """Finds the units of a network.

    A module whose own code has a branch beside weights, as residual blocks have, is a unit, and so are all others of
    its class. Modules that only hold plain layers one behind the other (the stem of a network, a transition) are units
    where there are such blocks; in a network without blocks, where their class says that they are meant as one, by
    being used more than once and no bare `nn.Sequential`. All other modules are looked into.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.count = Counter(type(module) for module in model.modules())
        self.blocks: set[type[nn.Module]] = set()
        self._paths: dict[str, DataPath | None] = {}

    def find(self, arguments: Arguments) -> list[str]:
        """Paths of the units in order; none is inside another.

        Raises:
            CannotTraceError: the network's own code cannot be written as a graph.
        """
        while True:
            known = len(self.blocks)
            units = self._inside("", self.model, arguments)
            if len(self.blocks) == known:
                return list(dict.fromkeys(units))

    def _inside(self, path: str, module: nn.Module, arguments: Arguments) -> list[str]:
        if path and (is_plain(module) or (type(module) in self.blocks and type(module) not in CONTAINERS)):
            return [path]
        data_path = self._data_path(path, module, arguments)
        if data_path is None:
            return [path]
        if path and data_path.branches():
            self.blocks.add(type(module))
            return [path]
        units: list[str] = []
        for node in data_path.nodes:
            if node.op == "call_module" and has_weights(part := data_path.submodule(node)):
                place = ".".join(name for name in (path, inside(str(node.target))) if name)
                alone = len(node.args) == 1 and not node.kwargs and isinstance(node.args[0], torch.fx.Node)
                given = values_of(node.args[0]) if alone else ()  # pyright: ignore[reportArgumentType]
                is_tensor = bool(given) and isinstance(given[0], torch.Tensor)
                units += self._inside(place, part, given) if is_tensor else [place]
        return [path] if path and self._is_group(module, units) else units

    def _data_path(self, path: str, module: nn.Module, arguments: Arguments) -> DataPath | None:
        if path not in self._paths:
            try:
                self._paths[path] = DataPath(module, trace_forward(module, arguments, lambda _: False))
            except CannotTraceError:
                if not path:
                    raise
                self._paths[path] = None
        return self._paths[path]

    def _is_group(self, module: nn.Module, units: list[str]) -> bool:
        """Whether a module that holds these units, one behind the other, is one itself."""
        if not all(is_plain(self.model.get_submodule(unit)) for unit in units):
            return False
        return bool(self.blocks) or (type(module) is not nn.Sequential and self.count[type(module)] > 1)


def ancestors(paths: list[str]) -> Callable[[str], bool]:
    """Whether a module holds one of these, by its path."""
    above = {path[:i] for path in paths for i, letter in enumerate(path) if letter == "."}
    return above.__contains__

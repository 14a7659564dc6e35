"""A range of a graph's nodes as a module that shares the network's own modules and tensors."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import takewhile
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg

from locallearn._fx.data_path import DataPath
from locallearn._fx.tracer import module_path, owner_path

Range: TypeAlias = "tuple[DataPath, int, int]"
"""Nodes of a data path, from the first index to the last."""


class Call(nn.Module):
    """A function, or a method, of one tensor and of constants."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.args, **self.kwargs)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", str(self.function))


class BorrowedTensor(nn.Module):
    """Returns a parameter, a buffer or a plain tensor that belongs to another module.

    It shares the owner's dictionary of buffers, so that a buffer which the owner replaces is replaced here too.
    """

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__()
        self.name = name
        self._attributes: dict[str, Any] = {}
        if name in owner._parameters:
            self.register_parameter(name, owner._parameters[name])
        elif name in owner._buffers:
            self._buffers = owner._buffers
        else:
            self._attributes = vars(owner)

    def forward(self) -> Tensor:
        return self._attributes[self.name] if self._attributes else getattr(self, self.name)


class ByMode(nn.Module):
    """Code that differs between training and evaluation.

    It runs in the mode of the module whose code it is. That one is not registered here; a copy without it, as in an
    auxiliary network, has a mode of its own.
    """

    outside_structure = ("mode",)

    def __init__(self, training: nn.Module, evaluation: nn.Module, owner: nn.Module) -> None:
        super().__init__()
        self.when_training, self.when_evaluating = training, evaluation
        self.mode: partial[bool] | None = partial(getattr, owner, "training")

    def forward(self, x: Tensor) -> Tensor:
        return (self.when_training if self._is_training() else self.when_evaluating)(x)

    def _is_training(self) -> bool:
        return self.training if self.mode is None else self.mode()

    def __deepcopy__(self, memo: dict[int, Any]) -> ByMode:
        owner = None if self.mode is None else memo.get(id(self.mode.args[0]))
        new = memo[id(self)] = ByMode.__new__(ByMode)
        new.__setstate__(copy.deepcopy(vars(self) | {"mode": None, "training": self._is_training()}, memo))
        new.mode = None if owner is None else partial(getattr, owner, "training")
        return new


def extract(data_path: DataPath, begin: int, end: int) -> nn.Module:
    """The nodes from `begin` to `end` as a module, from the single tensor before them to the single one after.

    Where each node takes the output of the one before, it is the one module that they call, or an `nn.Sequential`.
    """
    source, result = (
        data_path.cut_tensor(begin - 1),
        data_path.cut_tensor(end) if end < len(data_path.nodes) - 1 else data_path.output,
    )
    assert source is not None
    assert result is not None
    nodes = data_path.nodes[begin : end + 1]
    parts = _sequence(data_path, nodes, source, result)
    if parts is None:
        return _graph(data_path, nodes, source, result)
    parts = [part for part in parts if not isinstance(part, nn.Identity)] or [nn.Identity()]
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def code_text(data_path: DataPath, begin: int, end: int) -> str:
    """The nodes as text, equal for equal code."""
    names = {node: f"n{index - begin}" for index, node in enumerate(data_path.nodes) if index >= begin}
    names[cast("fx.Node", data_path.cut_tensor(begin - 1))] = "x"
    return "\n".join(_text(data_path, node, names) for node in data_path.nodes[begin : end + 1])


def _text(data_path: DataPath, node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    def text(argument: fx.Node) -> object:
        if argument in names:
            return names[argument]
        if data_path.is_count(argument):
            return "batch"
        target = str(argument.target)
        return target if argument.op == "get_attr" else (argument.op, target, arguments_text(argument))

    def arguments_text(node: fx.Node) -> str:
        return str(map_arg((node.args, dict(node.kwargs)), text))  # pyright: ignore[reportArgumentType]

    return f"{node.op} {node.target} {arguments_text(node)}"


def owner_of_difference(training: Range, evaluation: Range) -> nn.Module:
    """The module in whose own code two ranges differ; of several, the one that holds them all."""
    counts: list[Counter[tuple[str, tuple[str, ...]]]] = []
    for path, begin, end in (training, evaluation):
        names = dict.fromkeys(path.nodes, "_")
        nodes = path.nodes[begin : end + 1]
        counts.append(Counter((_text(path, node, names), owner_path(node)) for node in nodes))
    differing = (counts[0] - counts[1]) + (counts[1] - counts[0]) or counts[0] + counts[1]
    names = zip(*(owner for _, owner in differing), strict=False)
    common = takewhile(lambda of_each: len(set(of_each)) == 1, names)
    return training[0].module.get_submodule(".".join(of_each[0] for of_each in common))


def _sequence(data_path: DataPath, nodes: list[fx.Node], source: fx.Node, result: fx.Node) -> list[nn.Module] | None:
    parts: list[nn.Module] = []
    before = source
    for node in nodes:
        args = _with_values(node.args, data_path)
        kwargs = _with_values(dict(node.kwargs), data_path)
        first, rest = (node.args[0], args[1:]) if node.args else (None, ())
        if first is not before or not _all_known((rest, kwargs)):
            return None
        rest, kwargs = _values((rest, kwargs))
        if node.op == "call_module" and not rest and not kwargs:
            parts.append(data_path.submodule(node))
        elif node.op == "call_function":
            parts.append(Call(node.target, rest, kwargs))  # pyright: ignore[reportArgumentType]
        elif node.op == "call_method":
            parts.append(Call(getattr(torch.Tensor, str(node.target)), rest, kwargs))
        else:
            return None
        before = node
    return parts if before is result else None


class _Argument:
    """Stands for a node among arguments; its value is known where it is a constant."""

    def __init__(self, node: fx.Node, data_path: DataPath) -> None:
        self.known = data_path.is_constant(node)
        self.value = node.meta["values"][0]


def _with_values(arguments: Any, data_path: DataPath) -> Any:
    return map_arg(arguments, lambda node: _Argument(node, data_path))  # pyright: ignore[reportArgumentType]


def _leaves(arguments: Any) -> list[Any]:
    leaves: list[Any] = []
    map_aggregate(arguments, lambda value: leaves.append(value) or value)
    return leaves


def _all_known(arguments: Any) -> bool:
    return all(value.known for value in _leaves(arguments) if isinstance(value, _Argument))


def _values(arguments: Any) -> Any:
    return map_aggregate(arguments, lambda value: value.value if isinstance(value, _Argument) else value)


def _graph(data_path: DataPath, nodes: list[fx.Node], source: fx.Node, result: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    parts: dict[str, nn.Module] = {}
    known: dict[fx.Node, Any] = {source: graph.placeholder("x")}
    x = known[source]

    def new_node(node: fx.Node) -> Any:
        if node not in known:
            known[node] = copy_of(node)
        return known[node]

    def copy_of(node: fx.Node) -> Any:
        if data_path.is_constant(node):
            return node.meta["values"][0]
        if data_path.is_count(node) and node not in inner:
            return graph.call_method("size", (x, 0))
        if node.op == "get_attr":
            owner, _, name = module_path(node).rpartition(".")
            part = f"{name.strip('_')}_of_{owner.replace('.', '_') or 'network'}"
            parts[part] = BorrowedTensor(data_path.module.get_submodule(owner), name)
            return graph.call_module(part)
        new = graph.node_copy(node, new_node)
        new.meta.clear()
        if node.op == "call_module":
            new.target = module_path(node)
            parts[new.target] = data_path.submodule(node)
        return new

    inner = set(nodes)
    for node in nodes:
        new_node(node)
    graph.output(new_node(result))
    return fx.GraphModule(parts, graph, class_name="Segment")

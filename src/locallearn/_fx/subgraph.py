"""A stretch of forward code as a module that shares the network's own modules and tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg

from locallearn._fx.data_path import DataPath
from locallearn._fx.tracer import inside


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
    """Gives a parameter or buffer that belongs to another module.

    A buffer is looked up in the very dictionary of its owner, so that it is the one that the owner has at the time.
    """

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__()
        self.name = name
        if name in owner._parameters:
            self.register_parameter(name, owner._parameters[name])
        else:
            self._buffers = owner._buffers

    def forward(self) -> Tensor:
        return getattr(self, self.name)


class ByMode(nn.Module):
    """Code that is another in evaluation: which of the two runs is told by the first of the network's modules in it."""

    def __init__(self, training: nn.Module, evaluation: nn.Module, tells: nn.Module) -> None:
        super().__init__()
        self.when_training, self.when_evaluating, self.tells = training, evaluation, tells

    def forward(self, x: Tensor) -> Tensor:
        return (self.when_training if self.tells.training else self.when_evaluating)(x)


def extract(data_path: DataPath, begin: int, end: int) -> nn.Module:
    """The nodes from `begin` up to `end` as a module from the single tensor before them to the one behind.

    Where they follow each other in a line, it is the one module that they call, or an `nn.Sequential`.
    """
    source, result = (
        data_path.cut_tensor(begin - 1),
        data_path.cut_tensor(end) if end < len(data_path.nodes) - 1 else data_path.output,
    )
    assert source is not None
    assert result is not None
    nodes = data_path.nodes[begin : end + 1]
    parts = _in_a_line(data_path, nodes, source, result)
    if parts is None:
        return _graph(data_path, nodes, source, result)
    parts = [part for part in parts if not isinstance(part, nn.Identity)] or [nn.Identity()]
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def signature(data_path: DataPath, begin: int, end: int) -> str:
    """The same text for the same code."""
    names = {node: f"n{index}" for index, node in enumerate(data_path.nodes)}

    def told(node: fx.Node) -> object:
        if node in names:
            return names[node]
        return str(node.target) if node.op == "get_attr" else (node.op, str(node.target), told_all(node))

    def told_all(node: fx.Node) -> str:
        return str(map_arg((node.args, dict(node.kwargs)), told))  # pyright: ignore[reportArgumentType]

    return "\n".join(f"{node.op} {node.target} {told_all(node)}" for node in data_path.nodes[begin : end + 1])


def _in_a_line(data_path: DataPath, nodes: list[fx.Node], source: fx.Node, result: fx.Node) -> list[nn.Module] | None:
    parts: list[nn.Module] = []
    before = source
    for node in nodes:
        args = _with_constants(node.args, data_path)
        kwargs = _with_constants(dict(node.kwargs), data_path)
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


class _Constant:
    """Stands for a node among arguments."""

    def __init__(self, node: fx.Node, data_path: DataPath) -> None:
        self.known = data_path.is_constant(node)
        self.value = node.meta["values"][0]


def _with_constants(arguments: Any, data_path: DataPath) -> Any:
    return map_arg(arguments, lambda node: _Constant(node, data_path))  # pyright: ignore[reportArgumentType]


def _leaves(arguments: Any) -> list[Any]:
    found: list[Any] = []
    map_aggregate(arguments, lambda value: found.append(value) or value)
    return found


def _all_known(arguments: Any) -> bool:
    return all(value.known for value in _leaves(arguments) if isinstance(value, _Constant))


def _values(arguments: Any) -> Any:
    return map_aggregate(arguments, lambda value: value.value if isinstance(value, _Constant) else value)


def _graph(data_path: DataPath, nodes: list[fx.Node], source: fx.Node, result: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    parts: dict[str, nn.Module] = {}
    known: dict[fx.Node, Any] = {source: graph.placeholder("x")}
    x = known[source]

    def found(node: fx.Node) -> Any:
        if node not in known:
            known[node] = copied(node)
        return known[node]

    def copied(node: fx.Node) -> Any:
        if data_path.is_constant(node):
            return node.meta["values"][0]
        if data_path.is_count(node) and node not in inner:
            return graph.call_method("size", (x, 0))
        if node.op == "get_attr":
            owner, _, name = inside(str(node.target)).rpartition(".")
            part = f"{name.strip('_')}_of_{owner.replace('.', '_') or 'network'}"
            parts[part] = BorrowedTensor(data_path.module.get_submodule(owner), name)
            return graph.call_module(part)
        new = graph.node_copy(node, found)
        new.meta.clear()
        if node.op == "call_module":
            new.target = inside(str(node.target))
            parts[new.target] = data_path.submodule(node)
        return new

    inner = set(nodes)
    for node in nodes:
        found(node)
    graph.output(found(result))
    return fx.GraphModule(parts, graph, class_name="Segment")

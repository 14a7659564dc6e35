"""Where the layers of a network end: after its blocks, or after modules that the user named."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, fx, nn

from locallearn._fx.blocks import is_norm, is_single_layer
from locallearn._fx.data_path import DataPath
from locallearn._fx.tracer import module_path, values_of
from locallearn._utils.errors import LocalLearnError


@dataclass(frozen=True)
class Boundary:
    """The end of a layer.

    Attributes:
        name: the layer's name.
        end: index, on the data path, of the layer's last node.
    """

    name: str
    end: int


def boundaries_of_blocks(path: DataPath, groups: list[list[str]], model: nn.Module) -> list[Boundary]:
    """The ends of layers that are made of groups of modules, in order; the classifier is left out.

    Raises:
        LocalLearnError: more than one tensor passes wherever a layer could end.
    """
    layers = _nodes_of_layers(path, groups)
    layers = layers[: _classifier_start(path, layers)]
    if not layers:
        return []
    layers[-1] = _up_to_last_block(path, layers[-1])
    boundaries: list[Boundary] = []
    for number, nodes in enumerate(layers):
        next_layer = layers[number + 1][0] if number + 1 < len(layers) else None
        end = _last_end(path, nodes[-1], next_layer)
        if end is not None:
            boundaries.append(Boundary(_name(path, nodes, first=number == 0), end))
    if not boundaries or (len(boundaries) == 1 and len(layers) > 1):
        raise _no_chain(path, model, layers[0][-1])
    return boundaries


def _nodes_of_layers(path: DataPath, groups: list[list[str]]) -> list[list[int]]:
    """Indices of the module calls of each layer; normalisation joins the plain layer before it."""
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    layers: list[list[int]] = []
    current, before = None, None
    for index, node in enumerate(path.nodes):
        if node.op != "call_module" or not path.uses_parameters(node):
            continue
        module, group = path.submodule(node), group_of.get(module_path(node))
        joins = before is not None and is_norm(module) and is_single_layer(before)
        only_norms = bool(layers) and all(is_norm(path.submodule(path.nodes[i])) for i in layers[-1])
        if layers and (group == current or joins or only_norms):
            layers[-1].append(index)
        else:
            layers.append([index])
        current, before = group, module
    return _joined(path, layers)


def _joined(path: DataPath, layers: list[list[int]]) -> list[list[int]]:
    """Layers from the first to the last call of a module become one, since one local module must train it."""
    last_call = {module_path(path.nodes[index]): number for number, nodes in enumerate(layers) for index in nodes}
    joined: list[list[int]] = []
    end = -1
    for number, nodes in enumerate(layers):
        if number <= end:
            joined[-1] += nodes
        else:
            joined.append(nodes)
        end = max(end, *(last_call[module_path(path.nodes[index])] for index in nodes))
    return joined


def _classifier_start(path: DataPath, layers: list[list[int]]) -> int:
    """Index of the layer with which the classifier begins."""
    linear = [all(_is_linear(path, index) for index in nodes) for nodes in layers]
    others = [number for number, is_linear in enumerate(linear) if not is_linear]
    if not others:
        return max(0, len(layers) - 1)
    return others[-1] + 1 if others[-1] + 1 < len(layers) else max(1, others[-1])


def _is_linear(path: DataPath, index: int) -> bool:
    """Whether a module has weights of linear layers and normalisations alone, and its output is vectors."""
    module = path.submodule(path.nodes[index])
    owners = [part for part in module.modules() if part._parameters]
    is_vector = len(_shape(path.nodes[index])) == 1
    return all(isinstance(part, nn.Linear) or is_norm(part) for part in owners) and (is_vector or is_norm(module))


def _up_to_last_block(path: DataPath, nodes: list[int]) -> list[int]:
    """The nodes without the single layers after the last block: these go to the classifier."""
    blocks = [index for index in nodes if not is_single_layer(path.submodule(path.nodes[index]))]
    return [index for index in nodes if not blocks or index <= blocks[-1]]


def _last_end(path: DataPath, node: int, next_layer: int | None) -> int | None:
    """The last index from a layer's last call on, and before the next layer, after which a single tensor passes."""
    limit = _same_shape(path, node) if next_layer is None else next_layer - 1
    ends = path.cuts(node, limit + 1)
    if ends:
        return ends[-1]
    later = path.cuts(limit, _next_weights(path, limit)) if next_layer is None else []
    return later[0] if later else None


def boundaries_of_names(path: DataPath, names: list[str], model: nn.Module) -> list[Boundary]:
    """The ends of layers that named modules end.

    Raises:
        LocalLearnError: a module is not called exactly once, computes the network's output, or another tensor passes
            beside its output.
    """
    name_of: dict[int, str] = {}
    for name in names:
        calls = path.calls(name)
        if len(calls) != 1:
            raise LocalLearnError(
                f"layers: {type(model).__name__} calls {name!r} {len(calls)} times in its forward code, so it cannot"
                " end a layer: name a module that is called once."
            )
        name_of[calls[0]] = name
    boundaries: list[Boundary] = []
    for index, next_named in pairwise([*sorted(name_of), len(path.nodes)]):
        name, module = name_of[index], path.submodule(path.nodes[index])
        next_weights = _next_weights(path, index, skip_norms=is_single_layer(module) and not is_norm(module))
        limit = min(next_named, next_weights) - 1
        if index == max(name_of):
            limit = min(limit, max(index, _same_shape(path, index)))
        ends = path.cuts(index, limit + 1)
        if not ends:
            raise _no_chain(path, model, index)
        if ends[-1] >= len(path.nodes) - 1:
            raise LocalLearnError(
                f"layers: {name!r} gives the network's output: leave the last module to the classifier."
            )
        boundaries.append(Boundary(name, ends[-1]))
    return boundaries


def _next_weights(path: DataPath, start: int, *, skip_norms: bool = False) -> int:
    """Index of the next node that uses parameters."""
    for index in range(start + 1, len(path.nodes)):
        node = path.nodes[index]
        is_skipped = skip_norms and node.op == "call_module" and is_norm(path.submodule(node))
        if path.uses_parameters(node) and not is_skipped:
            return index
    return len(path.nodes)


def _same_shape(path: DataPath, start: int) -> int:
    """Index of the last node after `start`, without parameters between, whose output has the same shape."""
    last = start
    for index in range(start + 1, _next_weights(path, start)):
        value = values_of(path.nodes[index])[0]
        if not isinstance(value, Tensor) or value.shape[1:] != _shape(path.nodes[start]):
            break
        last = index
    return min(last, len(path.nodes) - 2)


def _shape(node: fx.Node) -> torch.Size:
    value = values_of(node)[0]
    return value.shape[1:] if isinstance(value, Tensor) else torch.Size([])


def _name(path: DataPath, nodes: list[int], *, first: bool) -> str:
    """A layer's name: its last module that is no normalisation, or "stem" for first modules of several parents."""
    names = [module_path(path.nodes[index]) for index in nodes]
    if first and len(names) > 1 and len({name.partition(".")[0] for name in names}) > 1:
        return "stem"
    modules = [path.submodule(path.nodes[index]) for index in nodes]
    own = [name for name, module in zip(names, modules, strict=True) if not is_norm(module)]
    return (own or names)[-1]


def _no_chain(path: DataPath, model: nn.Module, index: int) -> LocalLearnError:
    """Says which tensor passes beside the output of a node, and where a single tensor passes again."""
    others = [node for node in path.live_after(index) if node is not path.nodes[index]]
    users = path.users_after(others[0], index) if others else []
    beside = f"besides its output, {_describe(others[0])} is used later" if others else "no single tensor passes"
    by = f", for {_describe(users[0])}" if users else ""
    later = [path.nodes[i] for i in path.cuts(index + 1, len(path.nodes) - 1)]
    once = _called_once(path, later)
    earlier = _called_once(path, [path.nodes[i] for i in path.cuts(1, index + 1)])
    remedy = "none passes later, so"
    if once and len({*once, *earlier}) > 1:
        remedy = f"a single tensor passes after {once[0]!r}: name that in layers=[...], or"
    elif once:
        remedy = f"one passes after {once[0]!r} alone, which leaves a single layer, so"
    return LocalLearnError(
        f"{type(model).__name__} is no chain after {_describe(path.nodes[index])}: {beside}{by}; {remedy} give"
        " the network a method chain() that returns locallearn.Chain(layers={name: module, ...}, classifier=module)."
    )


def _called_once(path: DataPath, nodes: list[fx.Node]) -> list[str]:
    names = [module_path(node) for node in nodes if node.op == "call_module" and path.uses_parameters(node)]
    return [name for name in names if len(path.calls(name)) == 1]


def _describe(node: fx.Node) -> str:
    if node.op == "call_module":
        return repr(module_path(node))
    if node.op == "placeholder":
        return "the image"
    return f"{getattr(node.target, '__name__', node.target)}()"

"""Where the layers of a network end: behind units that were found, or modules that were named."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, fx, nn

from locallearn._fx.blocks import is_norm, is_plain
from locallearn._fx.data_path import DataPath
from locallearn._fx.tracer import inside, values_of
from locallearn._utils.errors import LocalLearnError


@dataclass(frozen=True)
class Cut:
    """A layer's name and the place behind which it ends."""

    name: str
    place: int


def found_cuts(data_path: DataPath, groups: list[list[str]], model: nn.Module) -> list[Cut]:
    """Where layers end that were found."""
    group_of = {path: index for index, group in enumerate(groups) for path in group}
    layers: list[list[int]] = []
    current, before = None, None
    for place, node in enumerate(data_path.nodes):
        if node.op != "call_module" or not data_path.bears_weights(node):
            continue
        module, group = data_path.submodule(node), group_of.get(inside(str(node.target)))
        joins = before is not None and is_norm(module) and is_plain(before)
        pending = bool(layers) and all(is_norm(data_path.submodule(data_path.nodes[i])) for i in layers[-1])
        if layers and (group == current or joins or pending):
            layers[-1].append(place)
        else:
            layers.append([place])
        current, before = group, module
    layers = layers[: _first_of_classifier(data_path, layers)]
    if not layers:
        return []
    blocks = [place for place in layers[-1] if not is_plain(data_path.submodule(data_path.nodes[place]))]
    # a normalisation or a convolution behind the last block goes to the classifier
    layers[-1] = [place for place in layers[-1] if not blocks or place <= blocks[-1]]
    cuts: list[Cut] = []
    for index, places in enumerate(layers):
        is_last = index + 1 == len(layers)
        behind = _same_shape(data_path, places[-1]) if is_last else layers[index + 1][0] - 1
        found = [place for place in range(places[-1], behind + 1) if data_path.cut_tensor(place) is not None]
        if is_last and not found:
            later = range(behind, _next_weights(data_path, behind))
            found = [place for place in later if data_path.cut_tensor(place) is not None][:1]
        if found:
            cuts.append(Cut(_name(data_path, places, first=index == 0), found[-1]))
    if not cuts or (len(cuts) == 1 and len(layers) > 1):
        raise _no_chain(data_path, model, layers[0][-1])
    return cuts


def _first_of_classifier(data_path: DataPath, layers: list[list[int]]) -> int:
    """Index of the layer with which the classifier begins."""
    linear = [all(_is_linear(data_path, place) for place in places) for places in layers]
    others = [index for index, is_linear in enumerate(linear) if not is_linear]
    if not others:
        return max(0, len(layers) - 1)
    return others[-1] + 1 if others[-1] + 1 < len(layers) else max(1, others[-1])


def _is_linear(data_path: DataPath, place: int) -> bool:
    """Whether all weights of a unit are those of linear layers and normalisations, and it gives vectors."""
    module = data_path.submodule(data_path.nodes[place])
    owners = [part for part in module.modules() if part._parameters]
    is_vector = len(_shape(data_path.nodes[place])) == 1
    return all(isinstance(part, nn.Linear) or is_norm(part) for part in owners) and (is_vector or is_norm(module))


def named_cuts(data_path: DataPath, groups: list[list[str]], model: nn.Module) -> list[Cut]:
    """Where layers end that were named."""
    places: dict[int, str] = {}
    for (path,) in groups:
        calls = data_path.calls(path)
        if len(calls) != 1:
            raise LocalLearnError(
                f"layers: {type(model).__name__} calls {path!r} {len(calls)} times in its forward code, so it cannot"
                " end a layer: name a module that is called once."
            )
        places[calls[0]] = path
    cuts: list[Cut] = []
    for place, next_named in pairwise([*sorted(places), len(data_path.nodes)]):
        path, module = places[place], data_path.submodule(data_path.nodes[place])
        behind = min(next_named, _next_weights(data_path, place, norms=is_plain(module) and not is_norm(module))) - 1
        if place == max(places):
            behind = min(behind, max(place, _same_shape(data_path, place)))
        found = [i for i in range(place, behind + 1) if data_path.cut_tensor(i) is not None]
        if not found:
            raise _no_chain(data_path, model, place)
        if found[-1] >= len(data_path.nodes) - 1:
            raise LocalLearnError(
                f"layers: {path!r} gives the network's output: leave the last module to the classifier."
            )
        cuts.append(Cut(path, found[-1]))
    return cuts


def _next_weights(data_path: DataPath, place: int, *, norms: bool = False) -> int:
    """The next place where parameters take part; normalisations are passed over with `norms`."""
    for index in range(place + 1, len(data_path.nodes)):
        node = data_path.nodes[index]
        if data_path.bears_weights(node) and not (
            norms and node.op == "call_module" and is_norm(data_path.submodule(node))
        ):
            return index
    return len(data_path.nodes)


def _same_shape(data_path: DataPath, place: int) -> int:
    """The last place of those behind a place that keep the shape without parameters."""
    last = place
    for index in range(place + 1, _next_weights(data_path, place)):
        value = values_of(data_path.nodes[index])[0]
        if not isinstance(value, Tensor) or value.shape[1:] != _shape(data_path.nodes[place]):
            break
        last = index
    return min(last, len(data_path.nodes) - 2)


def _shape(node: fx.Node) -> torch.Size:
    value = values_of(node)[0]
    return value.shape[1:] if isinstance(value, Tensor) else torch.Size([])


def _name(data_path: DataPath, places: list[int], *, first: bool) -> str:
    paths = [inside(str(data_path.nodes[place].target)) for place in places]
    if first and len(paths) > 1 and len({path.partition(".")[0] for path in paths}) > 1:
        return "stem"
    own = [
        path
        for path, place in zip(paths, places, strict=True)
        if not is_norm(data_path.submodule(data_path.nodes[place]))
    ]
    return (own or paths)[-1]


def _no_chain(data_path: DataPath, model: nn.Module, place: int) -> LocalLearnError:
    """What passes beside the output of a place, and where a single tensor passes again."""
    others = [node for node in data_path.passing(place) if node is not data_path.nodes[place]]
    users = data_path.users_after(others[0], place) if others else []
    beside = f"besides its output, {_told(others[0])} is used later" if others else "no single tensor passes"
    by = f", for {_told(users[0])}" if users else ""
    again = [i for i in range(place + 1, len(data_path.nodes) - 1) if data_path.cut_tensor(i) is not None]
    paths = [inside(str(data_path.nodes[i].target)) for i in again if data_path.nodes[i].op == "call_module"]
    named = [path for path in paths if len(data_path.calls(path)) == 1]
    remedy = f"a single tensor passes after {named[0]!r}: name that in layers=[...]" if named else "none passes later"
    return LocalLearnError(
        f"{type(model).__name__} is no chain after {_told(data_path.nodes[place])}: {beside}{by}; {remedy}, or give"
        " the network a method chain() that returns locallearn.Chain(layers={name: module, ...}, classifier=module)."
    )


def _told(node: fx.Node) -> str:
    if node.op == "call_module":
        return repr(inside(str(node.target)))
    if node.op == "placeholder":
        return "the image"
    return f"{getattr(node.target, '__name__', node.target)}()"

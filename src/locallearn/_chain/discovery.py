"""From a model to its chain."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain as concatenate

from torch import nn

from locallearn._chain.chain import Chain, HasChain, NoMapError, TracedChain
from locallearn._chain.layout import Shape
from locallearn._chain.sequential import split_sequential
from locallearn._chain.trace import trace
from locallearn._fx.graph_chain import layers_from_code
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning


def chain_of(model: nn.Module, image_shape: Shape, layers: str | Sequence[str] | None = None) -> Chain:
    """The chain of a model: from its `chain()` method, its children (`nn.Sequential`), or its traced forward code.

    Args:
        model: the network.
        image_shape: channels, height, width of one image.
        layers: modules that each end a layer; the forward code is then traced for any model.

    Raises:
        LocalLearnError: the model is no chain, or some of its parameters belong to no layer.
    """
    names_layers = isinstance(model, HasChain | nn.Sequential) and layers is None
    if not names_layers:
        traced, classifier = layers_from_code(model, image_shape, layers)
        return _with_layers(model, Chain(layers=traced, classifier=classifier))
    if isinstance(model, HasChain):
        chain = model.chain()
    else:
        assert isinstance(model, nn.Sequential)
        parts, classifier = split_sequential(model)
        chain = Chain(layers=parts, classifier=classifier)
    _with_layers(model, chain)
    parts = {f"layer {name!r}": layer for name, layer in chain.layers.items()} | {"the classifier": chain.classifier}
    owned = {id(p) for part in parts.values() for p in part.parameters()}
    if lost := [name for name, parameter in model.named_parameters() if id(parameter) not in owned]:
        raise LocalLearnError(
            f"{type(model).__name__} is no chain of the layers it names: its parameter {lost[0]!r} is in no layer"
            " and not in the classifier. Add the module that uses it to a layer in chain()."
        )
    if not owned:
        raise LocalLearnError(f"{type(model).__name__} has no parameters: nothing to train.")
    trained = {id(parameter) for parameter in model.parameters()}
    for name, part in parts.items():
        if any(id(parameter) not in trained for parameter in part.parameters()):
            raise LocalLearnError(
                f"{name} of {type(model).__name__}.chain() has parameters that are not the network's own: make its"
                " modules in __init__, and only group them in chain()."
            )
    return chain


def _with_layers(model: nn.Module, chain: Chain) -> Chain:
    if not chain.layers:
        raise LocalLearnError(f"{type(model).__name__} has no layer before its classifier: nothing to train locally.")
    return chain


@contextmanager
def layers_offered(model: nn.Module, chain: TracedChain) -> Iterator[None]:
    """While active, an error about a layer that passes on no map says which `layers` do, where some do."""
    try:
        yield
    except NoMapError as error:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LocalLearnWarning)
            names = [name for name, layout in zip(chain.names, chain.layouts, strict=True) if layout.no_map]
            pattern = next((p for p in _outer(names) if _passes_maps(model, chain.image_shape, p)), None)
        if pattern is None:
            raise
        raise LocalLearnError(str(error).replace("layers=[...]", f'layers=[r"{pattern}"]')) from error


def _outer(names: Sequence[str]) -> list[str]:
    """Expressions for modules that hold the named ones, the smallest first, with any number for each number."""
    outer = {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
    expressions = {re.sub(r"\d+", lambda _: r"\d+", re.escape(name)): name.count(".") for name in outer}
    return sorted(expressions, key=lambda expression: -expressions[expression])


def _passes_maps(model: nn.Module, image_shape: Shape, pattern: str) -> bool:
    """Whether layers that end with the modules of an expression pass on maps."""
    try:
        layouts = trace(chain_of(model, image_shape, [pattern]), image_shape).layouts
    except LocalLearnError:
        return False
    return len(layouts) > 1 and not any(layout.no_map for layout in layouts)


def refuse_shared_parameters(model: nn.Module, groups: list[list[nn.Module]]) -> None:
    """Refuse a parameter that two local modules would train."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owner: dict[int, int] = {}
    for module, group in enumerate(groups):
        for parameter in concatenate.from_iterable(part.parameters() for part in group):
            if owner.setdefault(id(parameter), module) != module:
                raise LocalLearnError(
                    f"parameter {names[id(parameter)]!r} is shared by local modules {owner[id(parameter)]} and"
                    f" {module}: give each its own copy, or choose modules so that one holds both uses."
                )

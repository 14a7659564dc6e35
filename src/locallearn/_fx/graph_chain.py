"""Any network as a chain: its forward code is traced, and cut where a single tensor passes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from locallearn._fx.blocks import CONTAINERS, BlockFinder, ancestors, has_weights
from locallearn._fx.boundaries import Boundary, boundaries_of_blocks, boundaries_of_names
from locallearn._fx.data_path import DataPath
from locallearn._fx.subgraph import ByMode, code_text, extract
from locallearn._fx.tracer import BATCHES, CannotTraceError, trace_forward
from locallearn._torch import private_api
from locallearn._torch.vision_libraries import import_timm
from locallearn._utils.errors import LocalLearnError, did_you_mean

Layers = tuple[dict[str, nn.Module], nn.Module]
"""Layers by name, and the classifier."""


def layers_from_code(model: nn.Module, image_shape: Sequence[int], layers: str | Sequence[str] | None) -> Layers:
    """Divide any network into layers and a classifier. The network itself is not changed.

    Args:
        model: the network.
        image_shape: channels, height, width of one image.
        layers: names, or regular expressions that match whole names, of modules that each end a layer. Modules before
            the first, or between two, belong to the layer that ends next; normalisation after a bare convolution, and
            all without parameters, to the layer before. By default the layers are residual blocks and the like, or
            timm's own groups.

    Raises:
        LocalLearnError: more than one tensor passes where a layer is to end, or the code cannot be traced.
    """
    with private_api.fake_mode() as mode:
        fake = private_api.fake_copy(model, mode).train()
        reference = next(fake.parameters(), None)
        if reference is None:
            raise LocalLearnError(f"{type(model).__name__} has no parameters: nothing to train.")
        like = {"device": reference.device, "dtype": reference.dtype}
        arguments = tuple(torch.empty((batch, *image_shape), **like) for batch in BATCHES)
        try:
            if layers is None:
                groups = _timm_groups(model) or [[block] for block in BlockFinder(fake).find(arguments)]
            else:
                groups = [[name] for name in _named(model, layers)]
            names = [name for group in groups for name in group]
            is_open = ancestors(names).__contains__
            path = DataPath(model, trace_forward(fake, arguments, is_open))
        except CannotTraceError as error:
            raise _refusal(model, error) from error
        boundaries = boundaries_of_names(path, names, model) if layers else boundaries_of_blocks(path, groups, model)
        try:
            evaluation = DataPath(model, trace_forward(fake.eval(), arguments, is_open))
        except CannotTraceError:  # a network need not be a chain in evaluation, where only its own forward is run
            evaluation = path
    return _extract_layers(path, evaluation, boundaries)


def _named(model: nn.Module, layers: str | Sequence[str]) -> list[str]:
    """Names of the modules that names and patterns match, in the network's order."""
    patterns = [layers] if isinstance(layers, str) else layers
    if not all(isinstance(pattern, str) for pattern in patterns) or not patterns:
        raise LocalLearnError(f"layers={patterns!r}: give a list of names, or of regular expressions, of modules.")
    known = [name for name, _ in model.named_modules() if name]
    named: set[str] = set()
    for pattern in patterns:
        try:
            matching = {pattern} & set(known) or {name for name in known if re.fullmatch(pattern, name)}
        except re.error as error:
            raise LocalLearnError(f"layers: {pattern!r} is no module and no regular expression ({error}).") from error
        if not matching:
            raise LocalLearnError(f"layers: no module matches {pattern!r}; {did_you_mean(pattern, _shallow(known))}")
        named |= matching
    for name in sorted(named):
        if inner := [other for other in sorted(named) if other.startswith(f"{name}.")]:
            raise LocalLearnError(f"layers: {inner[0]!r} is inside {name!r}, and both are named: name one of them.")
    return [name for name in known if name in named]


def _shallow(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.count(".") < 2]


def _timm_groups(model: nn.Module) -> list[list[str]] | None:
    """Names of modules by timm's own grouping of the parameters; None where the network has none."""
    if not callable(matcher := getattr(model, "group_matcher", None)):
        return None
    import_timm()
    from timm.models import group_parameters  # pyright: ignore[reportMissingImports]

    group_of: dict[str, Any] = dict(group_parameters(model, matcher(coarse=False), reverse=True))
    modules_of: dict[int, list[str]] = {}

    def visit(path: str, module: nn.Module) -> None:
        names = (f"{path}.{name}" if path else name for name, _ in module.named_parameters())
        groups = {group_of[name] for name in names if name in group_of}  # a shared parameter has one of its names only
        weighted = [child for child in module.children() if has_weights(child)]
        holds_one = isinstance(module, CONTAINERS) and len(weighted) == 1
        if len(groups) == 1 and path and not holds_one and not isinstance(module, nn.ModuleList):
            modules_of.setdefault(groups.pop(), []).append(path)
            return
        for name, child in module.named_children():
            if groups:
                visit(f"{path}.{name}" if path else name, child)

    visit("", model)
    return list(modules_of.values()) if len(modules_of) > 1 else None


def _extract_layers(path: DataPath, evaluation: DataPath, boundaries: list[Boundary]) -> Layers:
    is_same = _operations(path) == _operations(evaluation)
    parts: list[nn.Module] = []
    begin = 1
    for end in (*(boundary.end for boundary in boundaries), len(path.nodes) - 1):
        part = extract(path, begin, end)
        if is_same and code_text(path, begin, end) != code_text(evaluation, begin, end):
            modules = [path.submodule(node) for node in path.nodes[begin : end + 1] if node.op == "call_module"]
            part = ByMode(part, extract(evaluation, begin, end), modules[0]) if modules else part
        parts.append(part)
        begin = end + 1
    names = [boundary.name for boundary in boundaries]
    return dict(zip(names, parts, strict=False)), parts[-1]


def _operations(path: DataPath) -> list[tuple[str, str]]:
    return [(node.op, str(node.target)) for node in path.nodes]


def _refusal(model: nn.Module, error: CannotTraceError) -> LocalLearnError:
    size = "Is input_shape right, and the image large enough? Else give" if error.__cause__ else "Give"
    return LocalLearnError(
        f"the forward code of {type(model).__name__} cannot be traced: {str(error).rstrip('.')}."
        f" {size} the network a method chain() that returns"
        " locallearn.Chain(layers={name: module, ...}, classifier=module)."
    )

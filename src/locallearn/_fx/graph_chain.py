"""Any network as a chain: its forward code is traced, and cut where a single tensor passes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from locallearn._fx.blocks import BlockFinder, ancestors
from locallearn._fx.boundaries import Boundary, boundaries_of_blocks, boundaries_of_names
from locallearn._fx.data_path import DataPath
from locallearn._fx.subgraph import ByMode, code_text, extract
from locallearn._fx.timm_groups import hold_stages, timm_groups
from locallearn._fx.tracer import BATCHES, CannotTraceError, trace_forward
from locallearn._torch import private_api
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning, did_you_mean

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
            timm's own groups, whichever gives more layers.

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
                path, boundaries, is_open = _by_blocks(model, fake, arguments)
            else:
                names = _named(model, layers)
                is_open = ancestors(names).__contains__
                path = DataPath(model, trace_forward(fake, arguments, is_open))
                boundaries = boundaries_of_names(path, names, model)
        except CannotTraceError as error:
            raise _refusal(model, error) from error
        try:
            evaluation = DataPath(model, trace_forward(fake.eval(), arguments, is_open))
        except CannotTraceError:  # a network need not be a chain in evaluation, where only its own forward is run
            evaluation = path
    if heads := path.unused_heads():
        sentence = f"heads of {type(model).__name__} that its logits do not use are not trained: {', '.join(heads)}."
        warnings.warn(sentence, LocalLearnWarning, stacklevel=4)
    return _extract_layers(path, evaluation, boundaries)


_Division = tuple[DataPath, list[Boundary], Callable[[str], bool]]
"""The traced network, where its layers end, and which modules were traced into."""


def _by_blocks(model: nn.Module, fake: nn.Module, arguments: tuple[torch.Tensor, ...]) -> _Division:
    """By blocks, or by timm's own groups where these give as many layers, or where blocks would be parts of blocks."""
    groups = timm_groups(model)
    divided = None if groups is None else _divided(model, fake, arguments, groups)
    if divided is not None and not hold_stages(model, groups or []):
        return divided
    finder = BlockFinder(fake)
    blocks = [[block] for block in finder.find(arguments)]
    if divided is None:
        return _divided(model, fake, arguments, blocks)
    if finder.finds_parts():
        return divided
    return max(divided, _divided(model, fake, arguments, blocks), key=lambda division: len(division[1]))


def _divided(
    model: nn.Module, fake: nn.Module, arguments: tuple[torch.Tensor, ...], groups: list[list[str]]
) -> _Division:
    is_open = ancestors([name for group in groups for name in group]).__contains__
    path = DataPath(model, trace_forward(fake, arguments, is_open))
    return path, boundaries_of_blocks(path, groups, model), is_open


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

"""Any network as a chain: its forward code is traced, and cut where a single tensor passes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from locallearn._fx.blocks import BlockFinder, ancestors
from locallearn._fx.boundaries import Boundary, boundaries_of_blocks, boundaries_of_names
from locallearn._fx.data_path import DataPath
from locallearn._fx.subgraph import ByMode, Range, code_text, extract, owner_of_difference
from locallearn._fx.timm_groups import hold_stages, timm_groups
from locallearn._fx.tracer import BATCHES, CannotTraceError, may_be_the_size, trace_forward
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
                division = _by_blocks(model, fake, arguments)
            else:
                names = _named(model, layers)
                division = _divided(model, fake, arguments, [[name] for name in names], named=True)
        except CannotTraceError as error:
            raise _refusal(model, error) from error.__cause__ or error
        evaluation = _in_evaluation(division, model, fake.eval(), arguments)
    if heads := division.path.unused_heads():
        sentence = f"heads of {type(model).__name__} that its logits do not use are not trained: {', '.join(heads)}."
        warnings.warn(sentence, LocalLearnWarning, stacklevel=4)
    if evaluation is None:
        warnings.warn(
            f"{type(model).__name__} is no chain of the same layers in evaluation: net(images) is right there, but"
            " whatever looks at single layers, such as net.logits, runs their training code. Give the network a method"
            " chain(), or put code that differs by mode into modules of its own.",
            LocalLearnWarning,
            stacklevel=4,
        )
    return _extract_layers(division, evaluation or division)


@dataclass(frozen=True, kw_only=True)
class _Division:
    """The traced network, where its layers end, and by which groups of modules they were found."""

    path: DataPath
    boundaries: list[Boundary]
    groups: list[list[str]]
    named: bool

    @property
    def names(self) -> list[str]:
        return [boundary.name for boundary in self.boundaries]

    @property
    def ranges(self) -> list[Range]:
        """The nodes of each layer, then those of the classifier."""
        ends = [*(boundary.end for boundary in self.boundaries), len(self.path.nodes) - 1]
        return [(self.path, before + 1, end) for before, end in pairwise([0, *ends])]


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
    return max(divided, _divided(model, fake, arguments, blocks), key=lambda division: len(division.boundaries))


def _divided(
    model: nn.Module,
    fake: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    groups: list[list[str]],
    *,
    named: bool = False,
) -> _Division:
    names = [name for group in groups for name in group]
    path = DataPath(model, trace_forward(fake, arguments, ancestors(names).__contains__))
    boundaries = boundaries_of_names(path, names, model) if named else boundaries_of_blocks(path, groups, model)
    return _Division(path=path, boundaries=boundaries, groups=groups, named=named)


def _in_evaluation(
    training: _Division, model: nn.Module, fake: nn.Module, arguments: tuple[torch.Tensor, ...]
) -> _Division | None:
    """The network in evaluation, divided into the same layers, or None where it cannot be."""
    try:
        evaluation = _divided(model, fake, arguments, training.groups, named=training.named)
    except (CannotTraceError, LocalLearnError):
        return None
    return evaluation if evaluation.names == training.names else None


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


def _extract_layers(training: _Division, evaluation: _Division) -> Layers:
    parts: list[nn.Module] = []
    for trained, evaluated in zip(training.ranges, evaluation.ranges, strict=True):
        part = extract(*trained)
        if code_text(*trained) != code_text(*evaluated):
            part = ByMode(part, extract(*evaluated), owner_of_difference(trained, evaluated))
        parts.append(part)
    return dict(zip(training.names, parts, strict=False)), parts[-1]


def _refusal(model: nn.Module, error: CannotTraceError) -> LocalLearnError:
    remedy = "Give the network a method chain() that returns"
    if may_be_the_size(error.__cause__):
        remedy = "Is input_shape right, and the image large enough? Else give the network a method chain() that returns"
    return LocalLearnError(
        f"the forward code of {type(model).__name__} cannot be traced: {str(error).rstrip('.')}. {remedy}"
        " locallearn.Chain(layers={name: module, ...}, classifier=module)."
    )

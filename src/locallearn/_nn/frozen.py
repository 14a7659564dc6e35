"""Parts of a network that are not trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from locallearn._utils.errors import LocalLearnError, did_you_mean


def freeze(network: nn.Module, layers: Mapping[str, nn.Module], patterns: Sequence[str]) -> None:
    """Let parts of a network be as they are: their parameters get no gradients.

    Args:
        network: the network.
        layers: its layers by their names, which may have further parts than the module of that name.
        patterns: names of layers or modules, or regular expressions that match whole names.

    Raises:
        LocalLearnError: a pattern matches nothing, or nothing is left to train.
    """
    parts = [*network.named_modules(), *layers.items()]
    for pattern in patterns:
        try:
            found = [part for name, part in parts if name and (name == pattern or re.fullmatch(pattern, name))]
        except re.error as error:
            raise LocalLearnError(f"freeze: {pattern!r} is no name and no regular expression ({error}).") from error
        if not found:
            raise LocalLearnError(f"freeze: no layer or module matches {pattern!r}; {did_you_mean(pattern, layers)}")
        for part in found:
            part.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise LocalLearnError(f"freeze={', '.join(patterns)} leaves nothing to train: name fewer parts.")


def is_frozen(part: nn.Module) -> bool:
    """Whether a part has parameters, of which none is trained."""
    parameters = list(part.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def frozen_parts(network: nn.Module, layers: Sequence[nn.Module]) -> list[nn.Module]:
    """The parts of a network that are wholly frozen, and its frozen layers with all that belongs to them.

    Args:
        network: the network.
        layers: its layers, which may have parts without parameters, such as dropout.
    """
    return [part for part in (*layers, *network.modules()) if is_frozen(part)]

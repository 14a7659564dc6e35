"""The objective that a rule puts after each layer where a module may end, for the profile of a chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from locallearn._objectives.auxiliary import Head
from locallearn._objectives.objective import Objective
from locallearn._utils.errors import LocalLearnError
from locallearn.rules import Rule


def objectives_by_layer(
    rule: Rule, layers: int, ends: Sequence[int], objective_at: Callable[[int], Objective]
) -> list[Objective | None]:
    """For each layer the objective that ends there if every module that may end there does; None where none may.

    Where auxiliary networks depend on the partition, as AugLocal's do on the number of modules, the profile is close
    rather than exact.

    Args:
        rule: the rule.
        layers: number of layers.
        ends: layers with which modules may end.
        objective_at: makes the objective of a module, by its index in the partition with these ends.
    """
    objectives: list[Objective | None] = [None] * layers
    has_auxiliaries = type(rule).auxiliary is not Rule.auxiliary
    for module, end in enumerate(ends):
        if module == len(ends) - 1:
            objectives[end] = objective_at(module)
        elif not has_auxiliaries:
            objectives[end] = Objective(first=module, last=module, auxiliary=Head(_ChannelMean(), _sum))
        else:
            try:
                objectives[end] = objective_at(module)
            except LocalLearnError:  # the rule allows no auxiliary network here
                continue
    return objectives


class _ChannelMean(nn.Module):
    """The network of a placeholder head with negligible cost."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.flatten(1).mean(1, keepdim=True)


def _sum(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return outputs.sum()

"""What all processes must have in common, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import nn

from locallearn._utils.errors import LocalLearnError


def first_difference(facts: Sequence[Mapping[str, object]]) -> tuple[int, str, Any, Any] | None:
    """The first fact in which a process differs from the first one, if there is any.

    Args:
        facts: of each process, by their names.

    Returns:
        The process, the name, its value and that of the first process; None for a fact that is not there.
    """
    first = facts[0]
    for rank, other in enumerate(facts):
        for name in sorted({*first, *other}):
            if other.get(name) != first.get(name):
                return rank, name, other.get(name), first.get(name)
    return None


def refuse_other_networks(net: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Refuse processes whose networks differ in names, shapes or types of tensors.

    Raises:
        LocalLearnError: on every process; names the first difference.
    """
    tensors = (*net.named_parameters(), *net.named_buffers())
    mine = {name: f"{tuple(t.shape)} {t.dtype} {t.requires_grad}" for name, t in tensors}
    if difference := first_difference(_of_all(mine, group)):
        rank, name, here, there = difference
        raise LocalLearnError(
            f"process {rank} has another network than process 0: {name} is {here or 'not there'}, not"
            f" {there or 'not there'} (shape, type, trainable). Give all processes the same settings."
        )


def refuse_other_settings(settings: Mapping[str, object], group: dist.ProcessGroup | None) -> None:
    """Refuse processes with other settings than the first one's.

    Raises:
        LocalLearnError: on every process; names the first difference.
    """
    if difference := first_difference(_of_all(settings, group)):
        rank, name, here, there = difference
        raise LocalLearnError(
            f"process {rank} has {name}={here}, and process 0 has {there}: give all processes the same."
        )


def _of_all(facts: Mapping[str, object], group: dist.ProcessGroup | None) -> list[Mapping[str, object]]:
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, dict(facts), group=group)
    return gathered

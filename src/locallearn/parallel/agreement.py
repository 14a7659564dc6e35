"""What all processes must have in common, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from torch import nn

from locallearn._utils.errors import LocalLearnError


def refuse_other_networks(net: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Refuse processes whose networks differ in names, shapes or types of tensors.

    Raises:
        LocalLearnError: on every process; names the first difference.
    """
    tensors = (*net.named_parameters(), *net.named_buffers())
    mine = {name: f"{tuple(t.shape)} {t.dtype} {t.requires_grad}" for name, t in tensors}
    others: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(others, mine, group=group)
    for rank, other in enumerate(others):
        for name in sorted({*others[0], *other}):
            if (here := other.get(name)) != (there := others[0].get(name)):
                raise LocalLearnError(
                    f"process {rank} has another network than process 0: {name} is {here or 'not there'}, not"
                    f" {there or 'not there'} (shape, type, trainable). Give all processes the same settings."
                )


def refuse_other_settings(settings: Mapping[str, object], group: dist.ProcessGroup | None) -> None:
    """Refuse processes with other settings than the first one's.

    Raises:
        LocalLearnError: on every process; names the first difference.
    """
    others: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(others, dict(settings), group=group)
    for rank, other in enumerate(others):
        for name, value in others[0].items():
            if other[name] != value:
                raise LocalLearnError(
                    f"process {rank} has {name}={other[name]}, and process 0 has {value}: give all processes the same."
                )

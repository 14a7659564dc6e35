"""Where tensors travel between the processes of a pipeline: one route for each purpose and pair of processes."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn.parallel.channel import Route, broadcast

_last_number = 0


class Purpose(Enum):
    """What travels."""

    FEATURES = "the features of a batch"
    GRADIENTS = "the gradient of a cascade"
    WEIGHTS = "the weights of layers that EMA copies follow"


class Routes:
    """Makes the routes of a group of processes.

    Headers travel by gloo. Where tensors travel by NCCL, each purpose has a process group of its own, since NCCL
    matches what two processes of a group exchange by its order alone.

    Args:
        group: the processes, or None for all of them; each must call this.
        device: of the tensors.
    """

    def __init__(self, group: dist.ProcessGroup | None, device: torch.device) -> None:
        self.group = _world() if group is None else group
        self.device = device
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        backends = dist.get_backend_config(group)
        ranks = dist.get_process_group_ranks(self.group)
        self._tag = _agreed_number(self.group) * len(Purpose)
        self._by_gloo = device.type == "cpu" or f"{device.type}:gloo" in backends
        self._headers = self.group
        if "cpu:gloo" not in backends:
            self._headers = _new_group(ranks, backend="gloo")
        self._groups = dict.fromkeys(Purpose, self.group)
        if not self._by_gloo:
            self._groups = {purpose: _new_group(ranks) for purpose in Purpose}

    def route(self, purpose: Purpose, peer: int, *, ahead: bool) -> Route:
        """The route to or from another process.

        Args:
            purpose: what travels.
            peer: rank in the group.
            ahead: whether receives may be posted ahead, where these occupy no device.
        """
        return Route(
            what=purpose.value,
            peer=peer,
            tag=self._tag + list(Purpose).index(purpose),
            group=self._groups[purpose],
            headers=self._headers,
            device=self.device,
            wire=torch.device("cpu") if self._by_gloo else self.device,
            ahead=ahead and self._by_gloo,
        )

    def broadcast(self, tensor: Tensor | None, owner: int) -> Tensor:
        """A tensor of one process, in all of them; those without it give None.

        Raises:
            LocalLearnError: a process is gone or silent.
        """
        try:
            return broadcast(tensor, owner, self.group, self._headers, self.device)
        except RuntimeError as error:
            raise LocalLearnError(
                f"process {self.rank} was exchanging a result with all others, and one of them is gone or silent"
                f" ({reason_of(error).partition('. This is')[0]}): look at the others' errors, and start all again."
            ) from error


def _agreed_number(group: dist.ProcessGroup) -> int:
    """A number from 1 that no earlier routes of these processes had: receives that they posted ahead still wait."""
    global _last_number
    numbers = [0] * dist.get_world_size(group)
    dist.all_gather_object(numbers, _last_number + 1, group=group)
    _last_number = max(numbers)
    return _last_number


def _world() -> dist.ProcessGroup:
    world = dist.group.WORLD
    assert world is not None
    return world


def _new_group(ranks: list[int], **options: Any) -> dist.ProcessGroup:
    """A group of some processes, made by these alone."""
    group = dist.new_group(ranks, use_local_synchronization=True, **options)
    assert isinstance(group, dist.ProcessGroup)
    return group

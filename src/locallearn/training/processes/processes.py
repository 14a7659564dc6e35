"""The processes of a run, as the training loop sees them: one alone, or several together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from locallearn import parallel
from locallearn._engine.local_net import LocalNet
from locallearn._torch.device import all_random_states, seed_all, set_all_random_states
from locallearn.data import Feed
from locallearn.data.order import seed_of
from locallearn.training.processes.grid import ProcessGrid
from locallearn.training.processes.heartbeat import Heartbeat
from locallearn.training.processes.launch import Launch
from locallearn.training.processes.stop_vote import StopVote

Value = TypeVar("Value")


class Processes:
    """One process alone.

    Attributes:
        device: where it computes.
        layout: how all processes share the work.
        rank: of this process, from 0; the first one alone prints and writes.
        part: which part of each batch it reads.
        restarted: whether torchrun has started the run anew.
    """

    rank = part = 0
    layout = ProcessGrid()
    restarted = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def leads(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def at(self, activity: str) -> None:
        """Tell the others what this process does now."""

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What the first process makes, on all of them."""
        return make()

    def of_all(self, value: Value) -> list[Value]:
        """The value of each process, in order, on all of them."""
        return [value]

    def of_modules(self, value: Value) -> list[Value]:
        """The value of each process that has some of the network's modules and the same images, in their order."""
        return [value]

    def summed(self, values: Tensor) -> Tensor:
        """The sum over the parts of the batch."""
        return values

    def gathered(self, values: Tensor) -> Tensor:
        """The rows of all parts of the batch, on the CPU."""
        return values

    def stop_after_step(self, wanted: bool) -> bool:
        """Whether all stop after this step."""
        return wanted

    def stop_now(self, wanted: bool) -> bool:
        """Whether anybody wants to stop."""
        return wanted

    def share(self, net: LocalNet, *, synchronise_statistics: bool, replay_buffer: int | None) -> LocalNet:
        """The network, or this process's part of it, that trains in all processes."""
        return net

    def share_buffers(self, net: nn.Module) -> None:
        """Give all processes the buffers of the first one, such as the running statistics of batch normalisation."""

    def own_feed(self, feed: Feed) -> Feed:
        """How this process reads its part of each batch."""
        return replace(feed, part=self.part, parts=self.layout.data)

    def seed(self, seed: int) -> None:
        """Let processes draw different random numbers from here on; those of the first one stay as they are."""
        if self.rank:
            seed_all(seed_of(seed, self.rank))

    def random_states(self) -> dict[str, Any]:
        """The random state of the first process and, of several, those of the others and their layout."""
        first, *others = self.of_all(all_random_states(self.device))
        return first | ({"others": others, "layout": str(self.layout)} if others else {})

    def set_random_states(self, saved: Mapping[str, Any], *, epoch: int, step: int) -> None:
        """Restore what `random_states` returned; under another layout, others than the first derive their own."""
        if self.rank == 0:
            set_all_random_states(dict(saved), self.device)
        elif saved.get("layout") == str(self.layout):
            set_all_random_states(saved["others"][self.rank - 1], self.device)
        else:
            seed_all(seed_of(torch.initial_seed(), epoch, step))


class ManyProcesses(Processes):
    """Several processes, started by torchrun.

    Args:
        mesh: their grid, whose dimensions are `modules` and `data`.
    """

    def __init__(
        self, device: torch.device, launch: Launch, layout: ProcessGrid, mesh: DeviceMesh, beat: Heartbeat
    ) -> None:
        super().__init__(device)
        self.rank, self.layout, self.launch = launch.rank, layout, launch
        self.data_group, self.modules_group = mesh["data"].get_group(), mesh["modules"].get_group()
        self.part = mesh["data"].get_local_rank()
        self.restarted = launch.restarts > 0
        self._beat = beat
        self._vote = StopVote(1)

    def at(self, activity: str) -> None:
        self._beat.at(activity)

    def from_first(self, make: Callable[[], Value]) -> Value:
        values: list[Any] = [make() if self.leads else None]
        dist.broadcast_object_list(values)
        return values[0]

    def of_all(self, value: Value) -> list[Value]:
        values: list[Any] = [None] * self.layout.count
        dist.all_gather_object(values, value)
        return values

    def of_modules(self, value: Value) -> list[Value]:
        values: list[Any] = [None] * self.layout.modules
        dist.all_gather_object(values, value, group=self.modules_group)
        return values

    def summed(self, values: Tensor) -> Tensor:
        dist.all_reduce(values, group=self.data_group)
        return values

    def gathered(self, values: Tensor) -> Tensor:
        parts: list[Any] = [None] * self.layout.data
        dist.all_gather_object(parts, values, group=self.data_group)
        return torch.cat(parts)

    def stop_after_step(self, wanted: bool) -> bool:
        return self._vote.after_step(wanted)

    def stop_now(self, wanted: bool) -> bool:
        return self._vote.now(wanted)

    def share(self, net: LocalNet, *, synchronise_statistics: bool, replay_buffer: int | None) -> LocalNet:
        if self.layout.modules > 1:
            net = parallel.modules(net, group=self.modules_group, replay_buffer=replay_buffer)
            self._vote = StopVote(2 * self.layout.modules - 1 + (replay_buffer or 0))
            if self.layout.data == 1:
                return net
        return parallel.data(net, synchronise_statistics=synchronise_statistics, group=self.data_group)

    def share_buffers(self, net: nn.Module) -> None:
        for buffer in net.buffers():
            dist.broadcast(buffer, group=self.data_group, group_src=0)

"""Data parallel: each process trains on its part of a batch, and all end with the gradient of the whole batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from locallearn._engine.local_net import GRADIENT_BUCKET, LocalNet
from locallearn._utils.errors import LocalLearnError
from locallearn.parallel.agreement import refuse_other_networks
from locallearn.parallel.batch_norm import synchronise_batch_norm
from locallearn.parallel.channel import MemoryLayout, buckets, share_values
from locallearn.parallel.modules import ModulePart, refuse_overlap

_ON_THE_WAY = 4
"""Messages that may be unfinished, so that a process that is late for one delays nobody. The same number on each
process: the user's `on_complete` is called in the same order between them, and may communicate."""


def data(net: LocalNet, *, synchronise_statistics: bool = False, group: dist.ProcessGroup | None = None) -> LocalNet:
    """Train a network in several processes, each on its own part of every batch.

    After it, `net.backward` on each process's part leaves the gradient of the mean over the whole batch in `.grad`, on
    every process, and returns the losses of the whole batch (with the last micro-batch, those of all of them). The
    parts may differ in size. The gradients of local modules travel as soon as 1 MiB of them is complete, while the
    next ones run; `.grad` is then a view of what travelled, and `on_complete` is called for these modules. A parameter
    without a gradient counts as one with zeros, unless it has none on any process.

    Batch normalisation has the statistics of each process's part, as under `DistributedDataParallel`. PredSim's
    similarity and InfoPro's contrastive loss compare the images of a part.

    Args:
        net: the network, on its device; it is changed in place. All processes get the weights of the first one.
        synchronise_statistics: whether batch normalisation, in the auxiliary networks too, has the statistics of the
            whole batch; the layers then communicate twice in each pass.
        group: the processes; by default all of them.

    Returns:
        The network.

    Raises:
        LocalLearnError: there is no process group, the processes have different networks, modules overlap, or the
            processes have parts of a network that do not train on the same batches in the same order.
    """
    if not dist.is_initialized():
        raise LocalLearnError(
            "parallel.data needs a process group: start the program by torchrun, and call"
            " torch.distributed.init_process_group() first."
        )
    refuse_overlap(net)
    if isinstance(net, ModulePart) and net.replay_buffer is not None:
        raise LocalLearnError(
            "processes that share a batch train on it at the same time, and those with a replay buffer on whatever has"
            " come: call parallel.modules without replay_buffer, or leave parallel.data out."
        )
    refuse_other_networks(net, group)
    if synchronise_statistics:
        if net.memory != "fast":
            raise LocalLearnError(
                f"synchronised statistics do not work with memory={net.memory!r}, where processes may recompute"
                " different layers: use memory='fast', or each process's own statistics."
            )
        synchronise_batch_norm(net, group)
        net.recomputes = False
    share_values((*net.parameters(), *net.buffers()), group)
    net.gradient_sharing = GradientSharing(net, group)
    return net


class _Joined:
    """Consecutive gradients of one type in one tensor, of which they become views: they are not stored a second time.

    After them it has a number for each, 0 where this process has none.

    Args:
        parameters: whose gradients they are; zeros stand for those that are missing.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        layouts = [MemoryLayout.of(parameter) for parameter in parameters]
        self._missing = {place: one for place, one in enumerate(parameters) if one.grad is None}
        present = torch.ones(len(parameters), dtype=parameters[0].dtype, device=parameters[0].device)
        for place in self._missing:
            present[place] = 0
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        dense = [layout.dense(gradient).flatten() for layout, gradient in zip(layouts, gradients, strict=True)]
        self.flat = torch.cat([*dense, present])
        *parts, self._present = self.flat.split([*(one.numel() for one in parameters), len(parameters)])
        for parameter, layout, part in zip(parameters, layouts, parts, strict=True):
            parameter.grad = layout.restored(part.view(layout.sizes))

    def arrive(self, total: Tensor) -> None:
        """Make means of the sums; take the gradients away that no process has."""
        self.flat /= total
        if self._missing:  # else this process has all, and need not look
            present = self._present.tolist()
            for place, parameter in self._missing.items():
                if not present[place]:
                    parameter.grad = None


@dataclass
class _Message:
    """The gradients of some consecutive local modules on their way.

    Attributes:
        modules: their numbers, in the order in which they were complete.
        sums: the gradients, by type, and the work of summing them.
    """

    modules: list[int]
    sums: list[tuple[_Joined, dist.Work]]

    def arrive(self, total: Tensor) -> None:
        """Wait, and make means of the sums."""
        for joined, work in self.sums:
            work.wait()
            joined.arrive(total)


class GradientSharing:
    """Averages the gradients of one step over processes, module by module, weighted by their numbers of images.

    Args:
        net: the network.
        group: the processes, or None for all.

    Attributes:
        images: of all processes in the last optimizer step.
    """

    def __init__(self, net: LocalNet, group: dist.ProcessGroup | None) -> None:
        self._net, self._group = net, group
        self._images = 0  # of this process since the last optimizer step
        self._sums: Tensor | float = 0.0  # of their losses
        self.images = 0

    def begin(self, images: Tensor, on_complete: Callable[[int], None] | None, *, final: bool) -> Callable[[int], None]:
        """Start a (micro-)batch.

        Args:
            images: of this process.
            on_complete: the user's.
            final: whether the gradients are shared after it.

        Returns:
            What the engine calls when the gradients of a local module are complete.
        """
        self._images += len(images)
        self._latest = len(images)
        self._on_complete = on_complete
        self._complete: list[int] = []  # modules that wait for a message
        self._parameters: list[nn.Parameter] = []  # those of them that are trained
        self._messages: deque[_Message] = deque()
        if final:
            self._total = torch.tensor([float(self._images)], dtype=torch.float64, device=images.device)
            self._count = dist.all_reduce(self._total, group=self._group, async_op=True)
        return self._collect

    def end(self, losses: Tensor, *, final: bool) -> Tensor:
        """Wait for all gradients; the losses of all micro-batches of all processes, the same on each process."""
        self._sums = self._sums + losses.double() * self._latest
        if not final:
            return losses
        if self._complete:
            self._send()
        self._settle(0)
        dist.all_reduce(self._sums, group=self._group)
        mean = self._sums / self._total
        self._images, self._sums, self.images = 0, 0.0, int(self._total.item())
        return mean.to(losses.dtype)

    def _collect(self, module: int) -> None:
        """Let a module's gradients go with the next message."""
        self._complete.append(module)
        self._parameters += [p for p in self._net.parameters_of(module) if p.requires_grad]
        if sum(parameter.nbytes for parameter in self._parameters) >= GRADIENT_BUCKET:
            self._send()

    def _send(self) -> None:
        """Send a message; earlier ones have had the time of later backward passes to travel."""
        self._settle(_ON_THE_WAY - 1)
        sums = []
        for bucket in buckets(self._parameters):  # of the size, type and device of their gradients
            joined = _Joined(bucket)
            work = dist.all_reduce(joined.flat.mul_(self._images), group=self._group, async_op=True)
            assert work is not None
            sums.append((joined, work))
        self._messages.append(_Message(self._complete, sums))
        self._complete, self._parameters = [], []

    def _settle(self, left: int) -> None:
        """Wait for gradients and call the user's `on_complete`, until so many messages are unfinished."""
        while len(self._messages) > left:
            message = self._messages.popleft()
            if message.sums:
                assert self._count is not None
                self._count.wait()
                message.arrive(self._total)
            if self._on_complete is not None:
                for module in message.modules:
                    self._on_complete(module)

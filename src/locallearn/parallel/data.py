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
from locallearn.parallel.channel import Layout, buckets, share_values
from locallearn.parallel.modules import ModulePart

_ON_THE_WAY = 4
"""Messages that travel at once. Waiting for each would make all processes as slow as the slowest is between any two,
and not only as slow as the slowest is over a step."""


def data(net: LocalNet, *, synchronise_statistics: bool = False, group: dist.ProcessGroup | None = None) -> LocalNet:
    """Train a network in several processes, each on its own part of every batch.

    After it, `net.backward` on each process's part leaves the gradient of the mean over the whole batch in `.grad`, on
    every process, and returns the losses of the whole batch (with the last micro-batch, those of all of them). The
    parts may differ in size. The gradients of a local module travel as soon as they are complete, while the next ones
    run; then `on_complete` is called for it.

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
        LocalLearnError: there is no process group, the processes have different networks, or they have parts of a
            network that do not train on the same batches in the same order.
    """
    if not dist.is_initialized():
        raise LocalLearnError(
            "parallel.data needs a process group: start the program by torchrun, and call"
            " torch.distributed.init_process_group() first."
        )
    if isinstance(net, ModulePart) and net.replay_buffer is not None:
        raise LocalLearnError(
            "processes that share a batch train on it at the same time, and those with a replay buffer on whatever has"
            " come: call parallel.modules without replay_buffer, or leave parallel.data out."
        )
    refuse_other_networks(net, group)
    if synchronise_statistics:
        if net.memory == "lean":
            raise LocalLearnError(
                "synchronised statistics do not work with memory='lean', where processes may recompute different"
                " layers: use memory='fast', or each process's own statistics."
            )
        synchronise_batch_norm(net, group)
        net.recomputes = False
    share_values((*net.parameters(), *net.buffers()), group)
    net.gradient_sharing = GradientSharing(net, group)
    return net


@dataclass
class _Message:
    """The gradients of some consecutive local modules on their way.

    Attributes:
        modules: their numbers, in the order in which they were complete.
        sums: of each type of gradient all of them, one after the other in one tensor, and the work of summing it.
    """

    modules: list[int]
    sums: list[tuple[Tensor, dist.Work]]

    def is_here(self) -> bool:
        """Whether nothing is to be waited for."""
        return all(work.is_completed() for _, work in self.sums)

    def arrive(self, total: Tensor) -> None:
        """Wait, and make means of the sums."""
        for flat, work in self.sums:
            work.wait()
            flat /= total


def _joined(parameters: list[Tensor]) -> Tensor:
    """One tensor with all gradients, which become views of it: they are not stored a second time."""
    layouts = [Layout.of(parameter) for parameter in parameters]
    gradients = (parameter.grad for parameter in parameters if parameter.grad is not None)
    flat = torch.cat([layout.dense(part).flatten() for layout, part in zip(layouts, gradients, strict=True)])
    parts = flat.split([parameter.numel() for parameter in parameters])
    for parameter, layout, part in zip(parameters, layouts, parts, strict=True):
        parameter.grad = layout.restored(part.view(layout.sizes))
    return flat


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
        self._parameters: list[nn.Parameter] = []  # those of them that have gradients
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
        self._send()
        self._settle(0)
        dist.all_reduce(self._sums, group=self._group)
        mean = self._sums / self._total
        self._images, self._sums, self.images = 0, 0.0, int(self._total.item())
        return mean.to(losses.dtype)

    def _collect(self, module: int) -> None:
        """Let a module's gradients go with the next message."""
        self._complete.append(module)
        self._parameters += [p for p in self._net.parameters_of(module) if p.grad is not None]
        if sum(parameter.nbytes for parameter in self._parameters) >= GRADIENT_BUCKET:
            self._send()

    def _send(self) -> None:
        """Send a message; earlier ones have had the time of later backward passes to travel."""
        self._settle(_ON_THE_WAY - 1)
        sums = []
        for bucket in buckets(self._parameters):  # of the size, type and device of their gradients
            flat = _joined(bucket).mul_(self._images)
            work = dist.all_reduce(flat, group=self._group, async_op=True)
            assert work is not None
            sums.append((flat, work))
        self._messages.append(_Message(self._complete, sums))
        self._complete, self._parameters = [], []

    def _settle(self, left: int) -> None:
        """Put what has arrived in its place and call the user's `on_complete`, until few messages are on their way."""
        while self._messages and (len(self._messages) > left or self._messages[0].is_here()):
            message = self._messages.popleft()
            if message.sums:
                assert self._count is not None
                self._count.wait()
                message.arrive(self._total)
            if self._on_complete is not None:
                for module in message.modules:
                    self._on_complete(module)

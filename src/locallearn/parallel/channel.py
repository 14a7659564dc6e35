"""Channels: tensors from one process to another, in order, without waiting for the one that receives."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from locallearn._utils.errors import LocalLearnError, reason_of

_TYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8, torch.bool),
)
_BUCKET = 2**25
"""Bytes that travel together; as `DistributedDataParallel`."""
_DIMS = 6
_TENSORS = 4
_HEADER = 2 + _TENSORS * (2 + 2 * _DIMS)


@dataclass(frozen=True)
class MemoryLayout:
    """How a tensor lies in memory: its type, its sizes from the outermost stride to the innermost, and their dims."""

    dtype: torch.dtype
    sizes: tuple[int, ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> MemoryLayout:
        """The layout of a tensor, of one that is not dense as if it were contiguous."""
        order = tuple(sorted(range(tensor.dim()), key=lambda dim: (-tensor.stride(dim), dim)))
        if not tensor.permute(order).is_contiguous():
            order = tuple(range(tensor.dim()))
        return cls(tensor.dtype, tuple(tensor.shape[dim] for dim in order), order)

    def empty(self, device: torch.device) -> Tensor:
        """Memory for such a tensor, as a contiguous tensor."""
        return torch.empty(self.sizes, dtype=self.dtype, device=device)

    def dense(self, tensor: Tensor) -> Tensor:
        """The tensor as a contiguous one."""
        return tensor.detach().permute(self.order).contiguous()

    def restored(self, dense: Tensor) -> Tensor:
        """The tensor with its own dims, of a contiguous one."""
        return dense.permute([self.order.index(dim) for dim in range(len(self.order))])

    def numbers(self) -> list[int]:
        """The layout as whole numbers, always as many."""
        rest = [0] * (_DIMS - len(self.sizes))
        return [_TYPES.index(self.dtype), len(self.sizes), *self.sizes, *rest, *self.order, *rest]

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> MemoryLayout:
        """The layout of which these are the `numbers`."""
        dtype, dims, *rest = numbers
        return cls(_TYPES[dtype], tuple(rest[:dims]), tuple(rest[_DIMS : _DIMS + dims]))


@dataclass(frozen=True, kw_only=True)
class Route:
    """The way of one channel.

    Attributes:
        what: what travels, for errors.
        peer: rank in the group of the other process.
        tag: number of the channel.
        group: process group of the tensors.
        headers: process group of the headers, which has gloo.
        device: of the tensors.
        wire: the device on which they travel: the same, or the CPU where the group has gloo alone.
        ahead: whether receives are posted before it is known what comes; a pending receive must not occupy the device.
    """

    what: str
    peer: int
    tag: int
    group: dist.ProcessGroup
    headers: dist.ProcessGroup
    device: torch.device
    wire: torch.device
    ahead: bool

    def send(self, tensor: Tensor, group: dist.ProcessGroup | None = None) -> dist.Work:
        """Begin to send."""
        return self._begun(dist.isend, tensor, group)

    def receive(self, tensor: Tensor, group: dist.ProcessGroup | None = None) -> dist.Work:
        """Begin to receive into a tensor."""
        return self._begun(dist.irecv, tensor, group)

    def wait(self, work: dist.Work, doing: str) -> None:
        """Wait for what was begun.

        Raises:
            LocalLearnError: the other process is gone or silent.
        """
        try:
            work.wait()
        except RuntimeError as error:
            raise self._broken(doing, error) from error

    def _begun(self, function: Callable, tensor: Tensor, group: dist.ProcessGroup | None) -> dist.Work:
        group = group or self.group
        try:
            return function(tensor, dist.get_global_rank(group, self.peer), group=group, tag=self.tag)
        except (RuntimeError, ValueError) as error:  # of gloo, or of a group that was destroyed
            raise self._broken("exchanging", error) from error

    def _broken(self, doing: str, error: Exception) -> LocalLearnError:
        return LocalLearnError(
            f"process {self.group.rank()} was {doing} {self.what}, and process {self.peer} is gone or silent"
            f" ({reason_of(error).partition('. This is')[0]}): look at that process's own error, and start all"
            " processes again."
        )


@dataclass
class Message:
    """Tensors that travel together.

    Attributes:
        kind: a small number by which sender and receiver agree on what they are doing.
        tensors: the tensors.
    """

    kind: int
    tensors: list[Tensor]


class Sender:
    """The end of a channel that sends.

    A header tells kind, number, types and sizes of the tensors, then these follow. Where receives are posted ahead,
    they expect tensors as those before; if others come, what was expected is sent first, empty.

    One message is under way at a time. With the receive that is posted ahead, the process that sends can be two
    messages ahead of the work of the other.

    Args:
        route: the way.
        must_arrive: whether this process, before it drops the sender or ends, waits until the last message was taken.

    Attributes:
        sent_bytes: of tensors, so far.
        last_kind: of the last message.
    """

    def __init__(self, route: Route, *, must_arrive: bool = True) -> None:
        self.route = route
        self.sent_bytes = 0
        self.last_kind: int | None = None
        self._expected: list[MemoryLayout] = []
        self._works: list[dist.Work] = []
        self._tensors: list[Tensor] = []
        if must_arrive:
            weakref.finalize(self, _wait_at_the_end, self._works, self._tensors)
        else:
            weakref.finalize(self, _unfinished.append, (self._works, self._tensors))

    def send(self, kind: int, *tensors: Tensor) -> None:
        """Begin to send; waits until the message before was taken. The tensors must not change."""
        self.drain()
        layouts = [MemoryLayout.of(tensor) for tensor in tensors]
        fill = self._expected if layouts != self._expected else []
        dense = [layout.empty(self.route.wire) for layout in fill]
        dense += [layout.dense(t).to(self.route.wire) for layout, t in zip(layouts, tensors, strict=True)]
        header = _header(kind, layouts)
        self._works += [self.route.send(header, self.route.headers), *map(self.route.send, dense)]
        self._tensors += [header, *dense]
        self._expected = layouts if self.route.ahead else []
        self.sent_bytes += sum(tensor.nbytes for tensor in dense)
        self.last_kind = kind

    def drain(self) -> None:
        """Wait until the last message was taken, and let go of its tensors."""
        for work in self._works:
            self.route.wait(work, "sending")
        self._works.clear()
        self._tensors.clear()


class Receiver:
    """The end of a channel that receives."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self._layouts: list[MemoryLayout] = []
        self._pending: list[object] = []
        weakref.finalize(self, _unfinished.append, self._pending)
        if route.ahead:
            self._post([])

    def receive(self) -> Message:
        """Wait for the next message, in the order of sending."""
        if not self.route.ahead:
            self._post([])
        self.route.wait(self._header_work, "waiting for")
        kind, layouts = _read(self._header)
        posted = self._posted
        if layouts != self._layouts or not self.route.ahead:
            for _, work in posted:
                self.route.wait(work, "waiting for")
            posted = self._posted_for(layouts)
        for _, work in posted:
            self.route.wait(work, "waiting for")
        tensors = [
            layout.restored(tensor.to(self.route.device)) for layout, (tensor, _) in zip(layouts, posted, strict=True)
        ]
        self._layouts = layouts
        if self.route.ahead:
            self._post(layouts)
        return Message(kind, tensors)

    def _post(self, layouts: list[MemoryLayout]) -> None:
        """Begin to receive a message that is likely to have these layouts."""
        self._header = torch.empty(_HEADER, dtype=torch.int64)
        self._header_work = self.route.receive(self._header, self.route.headers)
        self._posted = self._posted_for(layouts)
        self._pending[:] = [self._header, self._header_work, self._posted]

    def _posted_for(self, layouts: list[MemoryLayout]) -> list[tuple[Tensor, dist.Work]]:
        tensors = [layout.empty(self.route.wire) for layout in layouts]
        return [(tensor, self.route.receive(tensor)) for tensor in tensors]


_unfinished: list[object] = []
"""What a dropped channel had begun: gloo serves a process no more when a message meets a receive that is gone."""


def _wait_at_the_end(works: list[dist.Work], tensors: list[Tensor]) -> None:
    with suppress(RuntimeError):  # the other process is gone, and says itself why
        for work in works:
            work.wait()


def packed(tensors: Sequence[Tensor]) -> Tensor:
    """The values of tensors as bytes, copied."""
    return torch.cat([tensor.detach().reshape(-1).view(torch.uint8) for tensor in tensors])


def unpacked(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Tensors from `packed` bytes, as views where their alignment allows it.

    Args:
        values: the bytes.
        like: tensors with the shapes and types.
    """
    parts = values.split([prod(tensor.shape) * tensor.element_size() for tensor in like])
    return [_viewed(part, tensor) for part, tensor in zip(parts, like, strict=True)]


def _viewed(part: Tensor, like: Tensor) -> Tensor:
    if part.storage_offset() % like.element_size():
        part = part.clone()
    return part.view(like.dtype).view(like.shape)


def _header(kind: int, layouts: Sequence[MemoryLayout]) -> Tensor:
    numbers = [kind, len(layouts), *(number for layout in layouts for number in layout.numbers())]
    return torch.tensor(numbers + [0] * (_HEADER - len(numbers)))


def _read(header: Tensor) -> tuple[int, list[MemoryLayout]]:
    kind, count, *rest = header.tolist()
    size = 2 + 2 * _DIMS
    return kind, [MemoryLayout.from_numbers(rest[i * size : (i + 1) * size]) for i in range(count)]


def broadcast(
    tensor: Tensor | None, owner: int, group: dist.ProcessGroup, headers: dist.ProcessGroup, device: torch.device
) -> Tensor:
    """A tensor of the process with rank `owner` in the group, in all of them; those without it give None."""
    header = torch.zeros(_HEADER, dtype=torch.int64)
    if tensor is not None:
        header = _header(0, [MemoryLayout.of(tensor)])
    dist.broadcast(header, group=headers, group_src=owner)
    _, (layout,) = _read(header)
    dense = layout.empty(device) if tensor is None else layout.dense(tensor)
    dist.broadcast(dense, group=group, group_src=owner)
    return layout.restored(dense) if tensor is None else tensor


@torch.no_grad()
def share_values(tensors: Iterable[Tensor], group: dist.ProcessGroup | None) -> None:
    """Give all processes the first one's values of tensors that have the same shapes and types in each."""
    for bucket in buckets(sorted(tensors, key=lambda tensor: f"{tensor.dtype} {tensor.device}")):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        dist.broadcast(flat, group=group, group_src=0)
        for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))


def buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive tensors of one type and device, up to the size of a bucket."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size >= _BUCKET or (tensor.dtype, tensor.device) != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket

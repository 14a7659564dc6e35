"""A detector of data races between streams that needs no GPU.

Real streams run side by side. PyTorch gives the memory of a freed tensor to the next tensor on the same stream, even
while another stream still reads it. Here all operators run in order, on streams that exist in name alone. Vector clocks
record what each stream has waited for; an operator races if it needs a result or memory that its stream did not wait
for.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from locallearn._engine.streams import OverlappedStreams

Clock = Counter[int]


class NamedStream:
    """A stream as a vector clock: how far every stream is at least when this one runs its next operator."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.clock: Clock = Counter()

    def record_event(self) -> Clock:
        return self.clock.copy()

    def wait_event(self, event: Clock, /) -> None:
        self.clock |= event


class Races(TorchDispatchMode):
    """While active, records the races between streams.

    Attributes:
        found: a sentence for each operator that races.
        overlaps: number of operators that may run at the same time as an earlier one of another stream.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.ambient = NamedStream(-1)
        self.streams = [NamedStream(number) for number in range(count)]
        self.current = self.ambient
        self.found: list[str] = []
        self.overlaps = 0
        self._latest: Clock = Counter()
        self._storages: dict[int, _Storage] = {}
        self._freed: dict[int, list[Clock]] = {}

    def overlapped(self) -> OverlappedStreams:
        return OverlappedStreams(self.streams, lambda: self.current, self._on)

    @contextmanager
    def _on(self, stream: NamedStream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        stream = self.current
        if any(self._latest[name] > stream.clock[name] for name in self._latest if name != stream.name):
            self.overlaps += 1
        stream.clock[stream.name] += 1
        self._latest[stream.name] = stream.clock[stream.name]
        written = self._written(func, args, kwargs or {})
        for tensor in self._tensors((args, kwargs)):
            self._use(str(func), tensor, written=id(tensor) in written)
        for tensor in self._tensors(result):
            if id(tensor.untyped_storage()) not in self._storages:  # no view
                self._use(str(func), tensor, written=True)
        return result

    def _use(self, name: str, tensor: Tensor, *, written: bool) -> None:
        storage = tensor.untyped_storage()
        if (key := id(storage)) not in self._storages:
            self._take_memory(name)
            reference = weakref.ref(storage, lambda _: self._free(key))
            self._storages[key] = _Storage(reference, self.current.name)
        known = self._storages[key]
        self._need(name, known.writes | known.reads if written else known.writes, "a tensor")
        (known.writes if written else known.reads)[self.current.name] = self.current.clock[self.current.name]

    def _free(self, key: int) -> None:
        storage = self._storages.pop(key)
        self._freed.setdefault(storage.made_on, []).append(storage.writes | storage.reads)

    def _take_memory(self, name: str) -> None:
        for uses in self._freed.pop(self.current.name, []):
            self._need(name, uses, "freed memory")

    def _need(self, name: str, uses: Clock, what: str) -> None:
        clock = self.current.clock
        if racing := [stream for stream, time in uses.items() if clock[stream] < time]:
            self.found.append(f"{name} on stream {self.current.name} takes {what} that stream {racing[0]} still uses")

    @staticmethod
    def _tensors(values: Any) -> list[Tensor]:
        return [value for value in tree_leaves(values) if isinstance(value, Tensor)]

    @staticmethod
    def _written(func: Any, args: Any, kwargs: Any) -> set[int]:
        if func is torch.ops.aten.native_batch_norm.default:
            return {id(statistics) for statistics in args[3:5]}
        pairs = zip(func._schema.arguments, args, strict=False)
        named = [(argument, kwargs.get(argument.name)) for argument in func._schema.arguments]
        writes = [value for argument, value in (*pairs, *named) if argument.alias_info and argument.alias_info.is_write]
        return {id(value) for value in tree_leaves(writes) if isinstance(value, torch.Tensor)}


class _Storage:
    def __init__(self, reference: weakref.ref[Any], made_on: int) -> None:
        self.reference, self.made_on = reference, made_on
        self.reads: Clock = Counter()
        self.writes: Clock = Counter()

"""Where a step's work is queued: in one order, or on CUDA streams that overlap. The overlap is experimental."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor


class Stream(Protocol):
    """A queue of an accelerator's work, as `torch.cuda.Stream` is."""

    def record_event(self) -> Any:
        """A mark after all work queued so far."""

    def wait_event(self, event: Any, /) -> None:
        """Work queued later begins once the mark is reached."""


class InOrder:
    """All work in one order: any device, and the least memory."""

    def step(self) -> AbstractContextManager[None]:
        """Around a step."""
        return nullcontext()

    def module(self) -> AbstractContextManager[None]:
        """Around all work of a graph segment: forward, auxiliary networks, backward."""
        return nullcontext()

    def passed_on(self, features: Tensor) -> None:
        """Called with the input of the next segment once its computation is queued."""

    def wait_for_earlier(self) -> None:
        """Work queued next begins when the work of all earlier modules is done."""


IN_ORDER = InOrder()


@dataclass
class OverlappedStreams(InOrder):
    """Modules take turns on several streams, so that one runs backward while the next ones run forward.

    All work of a module is queued on one stream, in order; the next module begins once its input is computed. Results
    equal those of `InOrder`. Only the features cross from stream to stream. They stay alive until the stream that wrote
    them has waited for the stream that reads them: PyTorch would give their memory to the next tensor at once.

    Args:
        streams: the streams, at least two.
        ambient: returns the stream on which the caller works.
        on: the context in which work is queued on a stream.
    """

    streams: Sequence[Stream]
    ambient: Callable[[], Stream]
    on: Callable[[Any], AbstractContextManager[Any]]

    def __post_init__(self) -> None:
        self._held: deque[Tensor] = deque(maxlen=len(self.streams) + 1)

    @contextmanager
    def step(self) -> Iterator[None]:
        ambient = self.ambient()
        self._number, self._features_there, self._done = 0, ambient.record_event(), None
        try:
            yield
        finally:
            for stream in self.streams[: self._number]:
                ambient.wait_event(stream.record_event())
            self._held.clear()

    @contextmanager
    def module(self) -> Iterator[None]:
        self._stream = self.streams[self._number % len(self.streams)]
        self._number += 1
        self._stream.wait_event(self._features_there)
        with self.on(self._stream):
            yield
        self._done = self._stream.record_event()

    def passed_on(self, features: Tensor) -> None:
        self._held.append(features)
        self._features_there = self._stream.record_event()

    def wait_for_earlier(self) -> None:
        if self._done is not None:
            self._stream.wait_event(self._done)


@cache
def streams_of(device: torch.device, overlap: int) -> InOrder:
    """Streams on which up to `overlap` modules go backward while the next one runs forward; in order but on CUDA."""
    if overlap == 0 or device.type != "cuda":
        return IN_ORDER
    streams = [torch.cuda.Stream(device) for _ in range(overlap + 1)]
    return OverlappedStreams(streams, lambda: torch.cuda.current_stream(device), torch.cuda.stream)

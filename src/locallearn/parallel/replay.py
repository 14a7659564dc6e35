"""The replay buffer of asynchronous module parallel: batches that a process may train on (DGL, Algorithm 2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Staleness:
    """How old the batches were that a process has trained on.

    Age is counted in updates: those that the process before had made, as far as had been heard, since it computed the
    features of a batch.

    Attributes:
        batches: trained on, each time.
        mean: age of a batch.
        largest: the same of the oldest one.
        reused: how many of `batches` had been trained on before.
        missed: batches that left the buffer before they were trained on.
    """

    batches: int
    mean: float
    largest: int
    reused: int
    missed: int


@dataclass
class _Written:
    tensors: Sequence[Tensor]
    version: int
    uses: int = 0


class ReplayBuffer:
    """The buffer :math:`B_{j-1}`, of at most M batches, that one process writes and the next one reads.

    A write into a full buffer drops the batch that was written first. A read takes the newest of those batches that
    were read least often. Source: Belilovsky, Eickenberg, Oyallon, "Decoupled Greedy Learning of CNNs", ICML 2020,
    Algorithm 2 and the text before it ("last-in-first-out, with precedence for the least reused samples").

    Args:
        size: M.
    """

    def __init__(self, size: int) -> None:
        self._batches: deque[_Written] = deque(maxlen=size)
        self._changed = Condition()
        self._is_open = True
        self._updates = 0
        self._reads = self._ages = self._oldest = self._reused = self._missed = 0

    def write(self, tensors: Sequence[Tensor], *, final: bool) -> None:
        """Add a batch.

        Args:
            tensors: features, labels, and images where auxiliary networks read them.
            final: whether the process that computed the features has updated its weights after it.
        """
        with self._changed:
            if len(self._batches) == self._batches.maxlen:
                self._missed += self._batches[0].uses == 0
            self._batches.append(_Written(tensors, self._updates))
            self._updates += final
            self._changed.notify()

    def read(self) -> Sequence[Tensor] | None:
        """The tensors of a batch; waits for the first one. None where there is none and none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches or not self._is_open)
            if not self._batches:
                return None
            batch = min(reversed(self._batches), key=lambda batch: batch.uses)  # the first of equal ones
            self._reused += batch.uses > 0
            batch.uses += 1
            age = self._batches[-1].version - batch.version
            self._reads, self._ages, self._oldest = self._reads + 1, self._ages + age, max(self._oldest, age)
            return batch.tensors

    def open(self, is_open: bool = True) -> None:
        """Whether more batches may be written; those that were are still read."""
        with self._changed:
            self._is_open = is_open
            self._changed.notify()

    @property
    def staleness(self) -> Staleness:
        """Of all reads so far."""
        with self._changed:
            return Staleness(
                batches=self._reads,
                mean=self._ages / max(1, self._reads),
                largest=self._oldest,
                reused=self._reused,
                missed=self._missed,
            )

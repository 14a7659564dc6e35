"""A link between devices."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2


@dataclass(frozen=True, kw_only=True)
class Link:
    """What each device sends through; what it receives comes beside that.

    Attributes:
        bytes_per_second: in one direction.
        latency: seconds from sending to receiving, whatever the size.
    """

    bytes_per_second: float
    latency: float = 0.0

    def seconds(self, size: float) -> float:
        """The time of one message."""
        return self.latency + size / self.bytes_per_second

    def all_reduce(self, size: float, devices: int) -> tuple[float, float]:
        """The time in which n devices sum tensors of this many bytes, and the bytes that each one sends.

        It is the faster of a ring, with 2 (n - 1) messages of one n-th of the bytes, and a double binary tree (Sanders,
        Speck and Träff, 2009), which sends all bytes up and down and has the latency of 2 log2(n) messages.
        """
        ring = 2 * (devices - 1) * self.seconds(size / devices), 2 * (devices - 1) / devices * size
        tree = 2 * ceil(log2(devices)) * self.latency + 2 * size / self.bytes_per_second, 2 * size
        return min(ring, tree)

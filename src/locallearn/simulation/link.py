"""A link between devices."""

from __future__ import annotations

from dataclasses import dataclass


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

    def all_reduce_seconds(self, size: float, devices: int) -> float:
        """The time of a ring all-reduce: 2 (n - 1) messages, each with one n-th of the bytes."""
        return 2 * (devices - 1) * self.seconds(size / devices)


def all_reduce_bytes(size: float, devices: int) -> float:
    """What each device sends in a ring all-reduce: 2 (n - 1) / n of the bytes."""
    return 2 * (devices - 1) / devices * size

"""Signals that ask a command to stop: Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
_SAME = 1.0
"""Seconds in which signals are one request: make hands on what `timeout` has sent to the whole group."""
_SIGNALLED = 128  # the exit status after a signal, less its number


@dataclass
class StopSignal:
    """Whether one of them came.

    Attributes:
        number: of the signal, or 0.
    """

    number: int = 0


@contextmanager
def stop_signals(told: StopSignal) -> Iterator[None]:
    """Take the signals that ask to stop; a second one, more than a second later, ends the process at once."""
    first = 0.0

    def stop(number: int, _: Any) -> None:
        nonlocal first
        if told.number:
            if time.monotonic() > first + _SAME:
                raise SystemExit(_SIGNALLED + number)
            return
        first = time.monotonic()
        told.number = number  # and no more: printing takes locks, which the interrupted code may hold

    numbers = {signal.SIGINT, signal.SIGTERM, _HANGUP}
    if signal.getsignal(_HANGUP) is signal.SIG_IGN:  # by nohup
        numbers.discard(_HANGUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Signals that ask a command to stop: Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
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
    """Take the signals that ask to stop; a second one ends the process at once."""

    def stop(number: int, _: Any) -> None:
        if told.number:
            raise SystemExit(_SIGNALLED + number)
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

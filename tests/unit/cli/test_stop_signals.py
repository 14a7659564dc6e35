"""Signals that ask a command to stop."""

from __future__ import annotations

import os
import signal

import pytest

from locallearn.cli import stop_signals
from locallearn.cli.stop_signals import StopSignal


def test_signals_of_one_moment_are_one_request_and_a_later_one_ends_the_process(monkeypatch):
    now = 100.0
    monkeypatch.setattr(stop_signals.time, "monotonic", lambda: now)
    told = StopSignal()
    with stop_signals.stop_signals(told):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert told.number == signal.SIGTERM
        now += 2
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGINT)

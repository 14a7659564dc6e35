"""Rates and times as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from locallearn._utils.errors import LocalLearnError

_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_RATES = {f"{prefix}B/s": size for prefix, size in _PREFIXES.items()}
_RATES |= {f"{prefix}bit/s": size / 8 for prefix, size in _PREFIXES.items()}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SPEEDS = {f"{prefix}FLOP/s": size for prefix, size in _PREFIXES.items()}


def parse_rate(text: str) -> float:
    """Bytes in a second, of a text such as 25GB/s or 100Gbit/s; errors name the right form."""
    return _parse(text, _RATES, "25GB/s or 100Gbit/s", least=1.0)


def parse_seconds(text: str) -> float:
    """Seconds, of a text such as 5us."""
    return _parse(text, _SECONDS, "5us, 0.1ms or 0s", least=0.0)


def parse_speed(text: str) -> float:
    """Floating-point operations in a second, of a text such as 10TFLOP/s."""
    return _parse(text, _SPEEDS, "10TFLOP/s", least=1.0)


def _parse(text: str, units: Mapping[str, float], example: str, least: float) -> float:
    parts = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(\S+)\s*", text)
    if parts is None or parts[2] not in units:
        raise LocalLearnError(f"{text!r} cannot be read: write a number and a unit, as in {example}.")
    value = float(parts[1]) * units[parts[2]]
    if value < least:
        raise LocalLearnError(f"{text!r} is too small: write a larger number.")
    return value

"""Counts, amounts of memory, rates and times as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf

from locallearn._utils.errors import LocalLearnError

_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_ANY_CASE = {name.lower(): size for name, size in _BYTES.items()}
_RATES = {f"{prefix}B/s": size for prefix, size in _PREFIXES.items()}
_RATES |= {f"{prefix}bit/s": size / 8 for prefix, size in _PREFIXES.items()}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SPEEDS = {f"{prefix}FLOP/s": size for prefix, size in _PREFIXES.items()}


def counted(count: int, noun: str) -> str:
    """`1 image`, `1,438 images`, `2 batches`."""
    ending = "" if count == 1 else "es" if noun.endswith(("s", "tch")) else "s"  # epochs, but batches
    return f"{count:,} {noun}{ending}"


def there_are(count: int, noun: str) -> str:
    """`there is 1 image`, `there are 2 images`."""
    return f"there {'is' if count == 1 else 'are'} {counted(count, noun)}"


def parse_bytes(text: str) -> int:
    """Bytes, of a text such as `1GiB`, `512 MiB` or `1.5gb`; errors name the right form."""
    example = "1GiB (KiB, MiB, GiB, KB, MB or GB)"
    return round(_parse(text, lambda unit: _ANY_CASE.get(unit.lower()), "amount of memory", example, least=1.0))


def parse_rate(text: str) -> float:
    """Bytes in a second, of a text such as 25GB/s or 100Gbit/s; errors name the right form."""
    return _parse(text, _RATES.get, "rate", "25GB/s or 100Gbit/s", least=1.0)


def parse_seconds(text: str) -> float:
    """Seconds, of a text such as 5us."""
    return _parse(text, _SECONDS.get, "time", "5us, 0.1ms or 0s", least=0.0)


def parse_speed(text: str) -> float:
    """Floating-point operations in a second, of a text such as 10TFLOP/s."""
    return _parse(text, _SPEEDS.get, "speed", "10TFLOP/s", least=1.0)


def _parse(text: str, size_of: Callable[[str], float | None], kind: str, example: str, *, least: float) -> float:
    parts = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(\S+)\s*", text)
    size = None if parts is None else size_of(parts[2])
    if parts is None or size is None:
        raise LocalLearnError(f"{text!r} is no {kind}: write a number and a unit, as in {example}.")
    value = float(parts[1]) * size
    if not least <= value < inf:
        wrong, better = ("small", "larger") if value < least else ("large", "smaller")
        raise LocalLearnError(f"{text!r} is too {wrong}: write a {better} number.")
    return value


def format_bytes(size: float) -> str:
    """Bytes in the largest binary unit that leaves a number of at least one."""
    unit = next((name for name in ("GiB", "MiB", "KiB") if size >= _BYTES[name]), "B")
    return f"{size / _BYTES[unit]:,.2f} {unit}" if unit != "B" else f"{size:,.0f} B"


def size_text(size: int) -> str:
    """Bytes as `parse_bytes` reads them, rounded down by less than one percent."""
    unit = next((name for name in ("GiB", "MiB", "KiB") if size >= 100 * _BYTES[name]), "B")
    return f"{size // _BYTES[unit]}{unit}"

"""Amounts of memory as people write them."""

from __future__ import annotations

import re

from locallearn._utils.errors import LocalLearnError

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def parse_bytes(text: str) -> int:
    """Bytes that a text such as `1GiB`, `512 MiB` or `1.5GB` stands for.

    Raises:
        LocalLearnError: no positive number, or no unit that is known.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text)
    units = {name.lower(): size for name, size in UNITS.items()}
    if found is None or found[2].lower() not in units:
        raise LocalLearnError(
            f"{text!r} is no amount of memory: write a number and a unit, as in 1GiB (KiB, MiB, GiB, KB, MB or GB)."
        )
    size = round(float(found[1]) * units[found[2].lower()])
    if size < 1:
        raise LocalLearnError(f"{text!r}: a budget of memory must be larger than 0.")
    return size


def format_bytes(size: float) -> str:
    """Bytes in the largest binary unit that leaves a number of at least one."""
    unit = next((name for name in ("GiB", "MiB", "KiB") if size >= UNITS[name]), "B")
    return f"{size / UNITS[unit]:,.2f} {unit}" if unit != "B" else f"{size:,.0f} B"


def size_text(size: int) -> str:
    """Bytes as `parse_bytes` reads them, rounded down by less than one percent."""
    unit = next((name for name in ("GiB", "MiB", "KiB") if size >= 100 * UNITS[name]), "B")
    return f"{size // UNITS[unit]}{unit}"

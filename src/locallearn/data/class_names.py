"""Which classes of two data sets are the same, by their names."""

from __future__ import annotations

from collections.abc import Sequence

# Names of one thing in different data sets: CIFAR-10's automobile is STL-10's car. Case, spaces, - and _ do not count.
ALIASES = (("car", "automobile"),)

_FIRST = {alias: names[0] for names in ALIASES for alias in names}


def shared_classes(classes: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """The index of each class that has an equal in `others`, to its index there.

    Names are equal when they are spelled alike, or listed in `ALIASES` as names of one thing.
    """
    known = {_plain(name): index for index, name in enumerate(others)}
    return {index: known[_plain(name)] for index, name in enumerate(classes) if _plain(name) in known}


def _plain(name: str) -> str:
    spelled = "".join(c for c in name.lower() if c not in " -_")
    return _FIRST.get(spelled, spelled)

"""Partitions that are best of all: by dynamic programming over the chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import inf

ModuleCost = Callable[[int, int], float]
"""What a module costs, from its first and its last layer."""


def smallest_largest(cost: ModuleCost, ends: Sequence[int], modules: int) -> tuple[int, ...]:
    """The partition into a number of modules whose costliest module is cheapest, by dynamic programming.

    Args:
        cost: of a module.
        ends: layers with which modules may end, rising; the last of them is the chain's last layer.
        modules: how many modules, at most `len(ends)`.

    Returns:
        The last layer of each module.
    """
    count = len(ends)
    starts = [0, *(end + 1 for end in ends[:-1])]
    costs = [[cost(starts[i], ends[j]) if i <= j else inf for j in range(count)] for i in range(count)]
    largest = costs[0]  # of the best partition of what ends at j, into the modules counted so far
    choices: list[list[int]] = []
    for before in range(1, modules):
        found, chosen = [inf] * count, [0] * count
        for j in range(before, count):
            options = [(max(largest[i - 1], costs[i][j]), -i) for i in range(before, j + 1)]
            found[j], begins = min(options)
            chosen[j] = -begins
        largest = found
        choices.append(chosen)
    last, path = count - 1, [count - 1]
    for chosen in reversed(choices):
        last = chosen[last] - 1
        path.append(last)
    return tuple(ends[j] for j in reversed(path))


def cheapest(cost: ModuleCost, ends: Sequence[int]) -> tuple[int, ...] | None:
    """The partition, into any number of modules, of the smallest sum of costs; None where that is infinite."""
    starts = [0, *(end + 1 for end in ends[:-1])]
    sums: list[float] = [0.0]
    begins: list[int] = []
    for j, end in enumerate(ends):
        total, i = min((sums[i] + cost(starts[i], end), i) for i in range(j + 1))
        sums.append(total)
        begins.append(i)
    if sums[-1] == inf:
        return None
    path, behind = [], len(ends)
    while behind:
        path.append(ends[behind - 1])
        behind = begins[behind - 1]
    return tuple(reversed(path))


def summed(sizes: Sequence[float]) -> ModuleCost:
    """The cost of a module as the sum over its layers."""
    up_to = [0.0, *accumulate(sizes)]
    return lambda first, last: up_to[last + 1] - up_to[first]

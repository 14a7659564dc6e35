"""Optimal partitions by dynamic programming over the chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import inf

ModuleCost = Callable[[int, int], float]
"""The cost of a module, from its first and its last layer."""


def smallest_largest(cost: ModuleCost, ends: Sequence[int], modules: int) -> tuple[int, ...]:
    """The partition into `modules` modules whose largest cost is smallest.

    Args:
        cost: the cost of a module.
        ends: layers with which modules may end, rising; the last of them is the chain's last layer.
        modules: number of modules, at most `len(ends)`.

    Returns:
        The last layer of each module.
    """
    count = len(ends)
    starts = [0, *(end + 1 for end in ends[:-1])]
    costs = [[cost(starts[i], ends[j]) if i <= j else inf for j in range(count)] for i in range(count)]
    largest = costs[0]  # largest cost in the best partition of the layers up to end j, with the modules so far
    choices: list[list[int]] = []
    for before in range(1, modules):
        next_largest, chosen = [inf] * count, [0] * count
        for j in range(before, count):
            options = [(max(largest[i - 1], costs[i][j]), -i) for i in range(before, j + 1)]
            next_largest[j], start = min(options)
            chosen[j] = -start
        largest = next_largest
        choices.append(chosen)
    last, path = count - 1, [count - 1]
    for chosen in reversed(choices):
        last = chosen[last] - 1
        path.append(last)
    return tuple(ends[j] for j in reversed(path))


def cheapest(cost: ModuleCost, ends: Sequence[int]) -> tuple[int, ...] | None:
    """The partition into any number of modules with the smallest sum of costs; None where that is infinite."""
    starts = [0, *(end + 1 for end in ends[:-1])]
    sums: list[float] = [0.0]
    first_end: list[int] = []  # of the module that ends last
    for j, end in enumerate(ends):
        total, i = min((sums[i] + cost(starts[i], end), i) for i in range(j + 1))
        sums.append(total)
        first_end.append(i)
    if sums[-1] == inf:
        return None
    path, remaining = [], len(ends)
    while remaining:
        path.append(ends[remaining - 1])
        remaining = first_end[remaining - 1]
    return tuple(reversed(path))


def summed(sizes: Sequence[float]) -> ModuleCost:
    """The cost of a module as the sum of its layers' sizes."""
    up_to = [0.0, *accumulate(sizes)]
    return lambda first, last: up_to[last + 1] - up_to[first]

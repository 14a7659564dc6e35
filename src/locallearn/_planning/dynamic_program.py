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
    # by the end they reach: largest cost of the best partition so far, minus where its last module starts, its ends
    best = {j: (costs[0][j], 0, (end,)) for j, end in enumerate(ends)}
    for before in range(1, modules):
        best = {
            j: min((max(best[i - 1][0], costs[i][j]), -i, (*best[i - 1][2], ends[j])) for i in range(before, j + 1))
            for j in range(before, count)
        }
    return best[count - 1][2]


def cheapest(cost: ModuleCost, ends: Sequence[int]) -> tuple[int, ...] | None:
    """The partition into any number of modules with the smallest sum of costs; None where that is infinite."""
    starts = [0, *(end + 1 for end in ends[:-1])]
    # of the layers so far: smallest sum, where its last module starts, its ends
    best: list[tuple[float, int, tuple[int, ...]]] = [(0.0, 0, ())]
    for j, end in enumerate(ends):
        best.append(min((best[i][0] + cost(starts[i], end), i, (*best[i][2], end)) for i in range(j + 1)))
    return None if best[-1][0] == inf else best[-1][2]


def summed(sizes: Sequence[float]) -> ModuleCost:
    """The cost of a module as the sum of its layers' sizes."""
    up_to = [0.0, *accumulate(sizes)]
    return lambda first, last: up_to[last + 1] - up_to[first]

"""The partition that fits a budget of memory, for `localize(modules="memory:1GiB@1024")`."""

from __future__ import annotations

from collections.abc import Callable

from locallearn._chain.partition import Partition
from locallearn._engine.local_net import LocalNet
from locallearn._engine.recompute_plan import Memory
from locallearn._planning.by_cost import BudgetSpec, fastest
from locallearn._planning.peak_memory import peak_memory
from locallearn._planning.profile import Profile
from locallearn._utils.byte_size import format_bytes
from locallearn._utils.errors import LocalLearnError

_ROUNDS = 6
_STATE = 3
"""Copies of each trained parameter: itself, its gradient, its momentum."""


def fit_budget(
    budget: BudgetSpec,
    found: Profile,
    memory: Memory,
    least: int,
    build: Callable[[Partition], LocalNet],
) -> LocalNet:
    """The network of the fastest partition whose predicted peak in total fits.

    Args:
        budget: bytes, and images in a batch.
        found: the profile.
        memory: "fast" or "lean".
        least: number of modules that the rule needs.
        build: from a partition to the network.

    Raises:
        LocalLearnError: nothing fits.
    """
    correction = 1.0  # exact bytes of activations for each that the profile foretells
    tried: list[tuple[int, int]] = []
    leanest = lowest(found, memory, least)
    for trial in range(_ROUNDS):
        chosen = _below(budget, found, memory, least, correction) if trial + 1 < _ROUNDS else leanest
        net = build(chosen)
        exact = peak_memory(net, budget.batch).total
        if exact <= budget.size:
            return net
        tried.append((exact, len(net.partition)))
        if chosen == leanest:
            break
        steady = _STATE * found.trained(chosen.ends)
        foretold = budget.batch * highest(found, chosen, memory)
        correction = max((exact - steady) / foretold, correction * 1.02)
    size, modules = min(tried)
    raise LocalLearnError(
        f"no partition fits in {format_bytes(budget.size)} with {budget.batch} images in a batch: the least is"
        f" {format_bytes(size)}, with {modules} modules"
        + ("; memory='lean' needs less." if memory == "fast" else ": take a smaller batch, or accumulate.")
    )


def _below(budget: BudgetSpec, found: Profile, memory: Memory, least: int, correction: float) -> Partition:
    """The fastest partition that should fit, else the one of the least peak."""
    trained = found.trained(())
    for _ in range(3):  # the parameters of auxiliary networks depend on the partition
        limit = (budget.size - _STATE * trained) / budget.batch / correction - found.inputs[0]
        partition = fastest(found, memory, limit, least)
        if partition is None:
            break
        trained, before = found.trained(partition.ends), trained
        if trained <= before:
            return partition
    return lowest(found, memory, least)


def highest(found: Profile, partition: Partition, memory: Memory) -> float:
    """The largest peak of a partition's modules, for each image."""
    groups = (partition.layers(module) for module in range(len(partition)))
    return max(found.peak(group[0], group[-1], memory) for group in groups)


def lowest(found: Profile, memory: Memory, least: int) -> Partition:
    """The fastest partition of those with the least peak."""
    every = Partition(found.ends)
    partition = fastest(found, memory, highest(found, every, memory) * 1.001, least)
    return every if partition is None else partition

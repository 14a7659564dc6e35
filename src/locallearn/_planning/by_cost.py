"""Partitions by what their modules cost: balanced, or the fastest below a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

import torch
from torch import nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.partition import Partition
from locallearn._engine.recompute_plan import Memory
from locallearn._objectives.auxiliary import Head
from locallearn._objectives.objective import Objective
from locallearn._planning.dynamic_program import cheapest, smallest_largest, summed
from locallearn._planning.profile import Profile, profile
from locallearn._torch import private_api
from locallearn._torch.op_counter import counted_macs
from locallearn._utils.byte_size import parse_bytes
from locallearn._utils.errors import LocalLearnError
from locallearn.rules import Rule

Quantity = Literal["parameters", "macs", "peak"]


@dataclass(frozen=True)
class BalancedSpec:
    """`parameters:K`, `macs:K` or `peak:K`: K modules of which the largest is as small as can be."""

    quantity: Quantity
    modules: int


@dataclass(frozen=True)
class BudgetSpec:
    """`memory:1GiB@1024`: what fits in so many bytes with so many images in a batch."""

    size: int
    batch: int


def parse_cost_spec(modules: object) -> BalancedSpec | BudgetSpec | None:
    """What `modules` says about the cost of modules; None where it says something else.

    Raises:
        LocalLearnError: it does, but not as it must be written.
    """
    name, colon, value = modules.partition(":") if isinstance(modules, str) else ("", "", "")
    if not colon or name not in (*get_args(Quantity), "memory"):
        return None
    if name == "memory":
        size, at, batch = value.partition("@")
        if not at or not batch.strip().isdigit() or int(batch) < 1:
            raise LocalLearnError(
                f"modules={modules!r}: say for how many images in a batch, at least 1, as in memory:1GiB@1024."
            )
        return BudgetSpec(parse_bytes(size), int(batch))
    if not value.strip().isdigit() or int(value) < 1:
        raise LocalLearnError(f"modules={modules!r}: write the number of modules, at least 1, as in {name}:8.")
    return BalancedSpec(name, int(value))  # pyright: ignore[reportArgumentType]


def balanced(
    wanted: BalancedSpec, chain: TracedChain, ends: Sequence[int], memory: Memory, look: Callable[[], Profile]
) -> Partition:
    """The partition whose largest module is smallest.

    Args:
        wanted: of what, and how many modules.
        chain: the chain.
        ends: layers with which modules may end.
        memory: "fast" or "lean", for peaks.
        look: finds the profile of the chain under the rule.
    """
    if wanted.modules > len(ends):
        raise LocalLearnError(
            f"modules='{wanted.quantity}:{wanted.modules}': with this rule, modules may end with {len(ends)} layers of"
            f" this network, so their number must be from 1 to {len(ends)}."
        )
    if wanted.quantity == "peak":
        found = look()
        return Partition(smallest_largest(lambda i, j: found.peak(i, j, memory), ends, wanted.modules))
    sizes = layer_parameters(chain) if wanted.quantity == "parameters" else layer_macs(chain)
    return Partition(smallest_largest(summed(sizes), ends, wanted.modules))


def fastest(found: Profile, memory: Memory, limit: float, least: int) -> Partition | None:
    """The partition of the least predicted time whose modules all stay below a limit of bytes for each image.

    Args:
        found: the profile.
        memory: "fast" or "lean".
        limit: bytes for each image.
        least: number of modules that the rule needs.

    Returns:
        The partition, or None where no partition stays below.
    """
    last = found.ends[-1]

    def time(i: int, j: int) -> float:
        return inf if i == 0 and j == last and least > 1 else found.seconds(i, j, memory, limit)

    ends = cheapest(time, found.ends)
    if ends is not None and len(ends) < least:
        ends = smallest_largest(lambda i, j: found.peak(i, j, memory), found.ends, least)
    return None if ends is None else Partition(ends)


def least_modules(rule: Rule, most: int) -> int:
    """Fewest modules with which a rule is more than backpropagation: two, or as many as its objectives span."""
    for modules in range(2, most + 1):
        try:
            rule.spans(modules)
        except LocalLearnError:
            continue
        return modules
    return 1


def profile_chain(
    chain: TracedChain,
    rule: Rule,
    ends: Sequence[int],
    objective_at: Callable[[int], Objective],
    memory: Memory,
    autocast: torch.dtype | None = None,
) -> Profile:
    """The profile of a chain under a rule, with the auxiliary networks that it has where every module may end.

    Where these depend on the partition, as AugLocal's on the number of modules, it is close.
    """
    by_layer: dict[int, Objective] = {}
    has_auxiliaries = type(rule).auxiliary is not Rule.auxiliary
    for module, end in enumerate(ends[:-1]):
        if has_auxiliaries:
            try:
                by_layer[end] = objective_at(module)
            except LocalLearnError:  # none can be there
                continue
        else:
            by_layer[end] = Objective(first=module, last=module, auxiliary=Head(_Pooled(), _nothing))
    by_layer[ends[-1]] = objective_at(len(ends) - 1)
    objectives = [by_layer.get(layer) for layer in range(len(chain))]
    return profile(chain, objectives, memory, ends=[end for end in ends if end in by_layer], autocast=autocast)


class _Pooled(nn.Module):
    """As good as nothing."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.flatten(1).mean(1, keepdim=True)


def _nothing(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return outputs.sum()


def layer_parameters(chain: TracedChain) -> list[int]:
    """Parameters of each layer; the classifier's are the last one's."""
    counts = [sum(p.numel() for p in layer.parameters()) for layer in (*chain.layers, chain.classifier)]
    return [*counts[:-2], counts[-2] + counts[-1]]


def layer_macs(chain: TracedChain) -> list[int]:
    """Multiply-accumulates of one image forward in each layer; the classifier's are the last one's."""
    counts = []
    with private_api.fake_mode() as mode, torch.no_grad():
        parts = private_api.fake_copy(nn.ModuleList([*chain.layers, chain.classifier]), mode).eval()
        reference = next(parts.parameters())
        features = torch.zeros(1, *chain.image_shape, dtype=reference.dtype, device=reference.device)
        for part in parts:
            count, features = counted_macs(part, features)
            counts.append(count)
    return [*counts[:-2], counts[-2] + counts[-1]]

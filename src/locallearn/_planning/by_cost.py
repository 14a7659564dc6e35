"""Partitions by cost: how users write them, those with balanced modules, and those that fit a budget of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.partition import Partition
from locallearn._engine.local_net import LocalNet
from locallearn._engine.recompute_plan import Memory
from locallearn._planning.dynamic_program import smallest_largest, summed
from locallearn._planning.prediction import Prediction, predict
from locallearn._planning.profile import Profile
from locallearn._planning.search import Search
from locallearn._torch import private_api
from locallearn._torch.op_counter import counted_macs
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted, format_bytes, parse_bytes
from locallearn.rules import Rule

Quantity = Literal["parameters", "macs", "peak"]


@dataclass(frozen=True)
class BalancedSpec:
    """`parameters:K`, `macs:K` or `peak:K`: K modules of which the largest is as small as possible."""

    quantity: Quantity
    modules: int


@dataclass(frozen=True)
class BudgetSpec:
    """`memory:1GiB@1024`: the fastest partition whose step fits in `size` bytes with `batch` images."""

    size: int
    batch: int


def parse_cost_spec(modules: object) -> BalancedSpec | BudgetSpec | None:
    """The partition by cost that `modules` asks for, or None where it asks for another kind.

    Raises:
        LocalLearnError: the number, the budget or the batch is missing or wrong.
    """
    name, colon, value = modules.partition(":") if isinstance(modules, str) else ("", "", "")
    if not colon or name not in (*get_args(Quantity), "memory"):
        return None
    if name == "memory":
        size, separator, batch = value.partition("@")
        if not separator or not batch.strip().isdigit() or int(batch) < 1:
            raise LocalLearnError(
                f"modules={modules!r}: say for how many images in a batch, at least 1, as in memory:1GiB@1024."
            )
        return BudgetSpec(parse_bytes(size), int(batch))
    if not value.strip().isdigit() or int(value) < 1:
        raise LocalLearnError(f"modules={modules!r}: write the number of modules, at least 1, as in {name}:8.")
    return BalancedSpec(name, int(value))  # pyright: ignore[reportArgumentType]


def balanced(
    spec: BalancedSpec,
    chain: TracedChain,
    ends: Sequence[int],
    memory: Memory,
    profile_of_chain: Callable[[], Profile],
) -> Partition:
    """The partition whose largest module is smallest.

    Args:
        spec: by which quantity, and how many modules.
        chain: the chain.
        ends: layers with which modules may end.
        memory: "fast", "lean" or "least", for peaks.
        profile_of_chain: makes the chain's profile under the rule; called for peaks only.
    """
    if spec.modules > len(ends):
        raise LocalLearnError(
            f"modules='{spec.quantity}:{spec.modules}': with this rule, modules may end with"
            f" {counted(len(ends), 'layer')} of this network, so their number must be from 1 to {len(ends)}."
        )
    if spec.quantity == "peak":
        profile = profile_of_chain()
        return Partition(smallest_largest(lambda i, j: profile.peak(i, j, memory), ends, spec.modules))
    sizes = layer_parameters(chain) if spec.quantity == "parameters" else layer_macs(chain)
    return Partition(smallest_largest(summed(sizes), ends, spec.modules))


_REMEDIES: Mapping[Memory, str] = {
    "fast": "; memory='lean' or 'least' may need less.",
    "lean": "; memory='least' may need less.",
    "least": ": take a smaller batch, or accumulate.",
}


def fit_budget(
    budget: BudgetSpec, rule: Rule, profile: Profile, memory: Memory, build: Callable[[Partition], LocalNet]
) -> LocalNet:
    """The network of the fastest partition whose predicted peak in total fits.

    Args:
        budget: bytes, and images in a batch.
        rule: the rule.
        profile: of the chain under the rule.
        memory: "fast", "lean" or "least".
        build: from a partition to the network.

    Raises:
        LocalLearnError: nothing fits.
    """
    names = profile.layers.chain.names
    nets: dict[tuple[str, ...], LocalNet] = {}

    def build_and_predict(_: Rule, __: Memory, partition: Partition, accumulate: int) -> Prediction:
        net = nets[tuple(names[end] for end in partition.ends)] = build(partition)
        return predict(net, budget.batch, accumulate=accumulate)

    search = Search(names, budget.batch, build_and_predict)
    search.add(rule, profile, [memory])
    best = search.fastest(budget.size)
    if best.peak <= budget.size:
        return nets[best.modules]
    raise LocalLearnError(
        f"no partition fits in {format_bytes(budget.size)} with {counted(budget.batch, 'image')} in a batch: the least"
        f" is {format_bytes(best.peak)}, with {counted(len(best.modules), 'module')}" + _REMEDIES[memory]
    )


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

"""The partition that fits a budget of memory, for `localize(modules="memory:1GiB@1024")`."""

from __future__ import annotations

from collections.abc import Callable

from locallearn._chain.partition import Partition
from locallearn._engine.local_net import LocalNet
from locallearn._engine.recompute_plan import Memory
from locallearn._planning.by_cost import BudgetSpec
from locallearn._planning.prediction import Prediction, predict
from locallearn._planning.profile import Profile
from locallearn._planning.search import Search
from locallearn._utils.byte_size import format_bytes
from locallearn._utils.errors import LocalLearnError
from locallearn.rules import Rule


def fit_budget(
    budget: BudgetSpec, rule: Rule, profile: Profile, memory: Memory, build: Callable[[Partition], LocalNet]
) -> LocalNet:
    """The network of the fastest partition whose predicted peak in total fits.

    Args:
        budget: bytes, and images in a batch.
        rule: the rule.
        profile: of the chain under the rule.
        memory: "fast" or "lean".
        build: from a partition to the network.

    Raises:
        LocalLearnError: nothing fits.
    """
    names = profile.layers.chain.names
    nets: dict[tuple[str, ...], LocalNet] = {}

    def build_and_predict(_: Rule, __: Memory, partition: Partition, images: int) -> Prediction:
        net = nets[tuple(names[end] for end in partition.ends)] = build(partition)
        return predict(net, images)

    search = Search(names, budget.batch, build_and_predict)
    search.add(rule, profile, [memory])
    best = search.fastest(budget.size)
    if best.peak <= budget.size:
        return nets[best.modules]
    raise LocalLearnError(
        f"no partition fits in {format_bytes(budget.size)} with {budget.batch} images in a batch: the least is"
        f" {format_bytes(best.peak)}, with {len(best.modules)} modules"
        + ("; memory='lean' needs less." if memory == "fast" else ": take a smaller batch, or accumulate.")
    )

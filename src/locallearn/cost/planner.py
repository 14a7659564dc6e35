"""The planner: settings whose step fits a budget of memory, at the least predicted time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import nn

from locallearn._chain.discovery import chain_of, trace
from locallearn._chain.partition import Partition
from locallearn._engine.recompute_plan import Memory
from locallearn._localize import net_of, profile_of
from locallearn._planning.depths import depth_text, variants
from locallearn._planning.prediction import MakeStepper, Prediction, nesterov_sgd, predict
from locallearn._planning.profile import profile_layers
from locallearn._planning.search import Candidate, Search
from locallearn._utils.byte_size import format_bytes
from locallearn._utils.errors import LocalLearnError
from locallearn.rules import BP, Checkpoint, Rule, Wrapper

DEPTHS = (2, 3, 4, 5, 6)
"""Depths of auxiliary networks to try, as in AugLocal's tables."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The result of `plan`.

    Attributes:
        best: the fastest candidate that fits.
        candidates: the frontier of memory and time among all candidates that were checked, by memory.
        baselines: backpropagation and checkpointing.
        budget: bytes.
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    baselines: tuple[Candidate, ...]
    budget: int


def plan(
    model: nn.Module,
    rule: Rule,
    *,
    input_shape: tuple[int, int, int],
    batch: int,
    budget: int,
    depths: Sequence[int] = DEPTHS,
    layers: str | Sequence[str] | None = None,
    make_stepper: MakeStepper = nesterov_sgd,
    autocast: torch.dtype | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Find the partition, auxiliary depth, `memory` and if need be accumulation whose step fits at the least time.

    Each layer and each auxiliary network is counted once. Peak and time of any partition follow from these counts, so
    dynamic programming gives the fastest partition below a limit for each depth and `memory`. The best ones are then
    predicted as whole steps, and these predictions decide.

    Args:
        model: the backbone, which is not changed.
        rule: the rule.
        input_shape: channels, height, width of one image.
        batch: images in a batch.
        budget: bytes of the peak in total.
        depths: depths of auxiliary networks to try, where the rule has a setting `depth`.
        layers: as for `localize`.
        make_stepper: makes the optimizer.
        autocast: dtype of mixed precision, or None.
        say: called with a sentence before each piece of work.

    Raises:
        LocalLearnError: nothing fits; the error names the least that would, and its settings.
    """
    if batch < 1:
        raise LocalLearnError(f"batch={batch} must be at least 1.")
    if type(rule).auxiliary is Rule.auxiliary and not isinstance(rule, Wrapper):
        raise LocalLearnError(f"{rule} has no auxiliary networks, so there is nothing to plan: give a local rule.")
    chain = trace(chain_of(model, input_shape, layers), input_shape)

    def predict_step(of: Rule, memory: Memory, partition: Partition, images: int) -> Prediction:
        net = net_of(model, chain, of, partition, memory)
        net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return predict(net, images, make_stepper=make_stepper, autocast=autocast)

    search = Search(chain.names, batch, predict_step, say)
    say("profiling the backbone")
    layer_profile = profile_layers(chain, "lean", autocast=autocast)
    for variant in variants(rule, depths):
        say(f"profiling the auxiliary networks of {variant}{depth_text(variant)}")
        search.add(variant, profile_of(layer_profile, variant), get_args(Memory))
    fastest = search.fastest(budget, most=max(1, batch // 2))
    if fastest.peak > budget:
        images = "image" if fastest.micro_batch == 1 else "images"
        raise LocalLearnError(
            f"nothing fits in {format_bytes(budget)}: the least is {format_bytes(fastest.peak)}, with {fastest.rule}"
            f"{depth_text(fastest.rule)}, {len(fastest.modules)} modules, memory={fastest.memory} and"
            f" {fastest.micro_batch} {images} at a time (batch {batch}, accumulate {fastest.accumulate})."
        )
    search.check_frontier(fastest.accumulate)
    candidates = search.checked(fastest.accumulate)
    every = Partition(tuple(range(len(chain))))
    baselines = []
    for baseline in (BP(), Checkpoint()):
        say(f"checking {baseline}")
        baselines.append(search.candidate(baseline, "fast", every, fastest.accumulate))
    return Plan(
        best=min((one for one in candidates if one.peak <= budget), key=lambda one: (one.seconds, one.peak)),
        candidates=tuple(sorted((c for c in candidates if not _beaten(c, candidates)), key=lambda one: one.peak)),
        baselines=tuple(baselines),
        budget=budget,
    )


def _beaten(one: Candidate, others: Sequence[Candidate]) -> bool:
    own = one.peak, one.seconds
    return any(o.peak <= own[0] and o.seconds <= own[1] and (o.peak, o.seconds) != own for o in others)

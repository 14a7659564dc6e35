"""The planner: settings whose step fits a budget of memory, at the least predicted time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from locallearn._chain.discovery import chain_of, trace
from locallearn._localize import localize, profile_of
from locallearn._planning.peak_memory import MakeStepper, nesterov_sgd
from locallearn._utils.errors import LocalLearnError
from locallearn.cost.depths import depth_text, variants
from locallearn.cost.predicted_time import predict
from locallearn.cost.search import Candidate, Search
from locallearn.rules import BP, Checkpoint, Rule, Wrapper

DEPTHS = (2, 3, 4, 5, 6)
"""Depths that are tried of rules that have one, as in AugLocal's tables."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `plan` found.

    Attributes:
        best: the fastest that fits.
        candidates: it and others, by memory, of which none is better in both memory and time than another.
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

    Each layer and each auxiliary network is looked at once; from these follow peak and time of any partition, so that
    for each depth, `memory` and limit of a module's peak the fastest partition is found by dynamic programming. The
    best and some others are then looked at whole (`predict`), which is what counts.

    Args:
        model: the backbone, which is not changed.
        rule: the rule.
        input_shape: channels, height, width of one image.
        batch: images in a batch.
        budget: bytes of the peak in total.
        depths: depths of auxiliary networks to be tried, where the rule has a setting `depth`.
        layers: as for `localize`.
        make_stepper: makes the optimizer.
        autocast: dtype of mixed precision, or None.
        say: told how it goes.

    Raises:
        LocalLearnError: nothing fits; it says the least that would, and with what.
    """
    if batch < 1:
        raise LocalLearnError(f"batch={batch} must be at least 1.")
    if type(rule).auxiliary is Rule.auxiliary and not isinstance(rule, Wrapper):
        raise LocalLearnError(f"{rule} has no auxiliary networks, so nothing is to be planned: give a local rule.")
    chain = trace(chain_of(model, input_shape, layers), input_shape)
    build = partial(localize, model, input_shape=input_shape, layers=layers)
    search = Search(chain, build, batch, partial(predict, make_stepper=make_stepper, autocast=autocast), say)
    for variant in variants(rule, depths):
        say(f"looking at the parts of {variant}{depth_text(variant)}")
        search.add(variant, profile_of(chain, variant, "lean", autocast=autocast))
    parts = search.best(budget).accumulate
    for sketch in search.frontier(parts):
        search.checked(sketch, parts)
    known = search.known(parts)
    best = min((one for one in known if one.peak <= budget), key=lambda one: (one.seconds, one.peak))
    shown = sorted((one for one in known if not _beaten(one, known)), key=lambda one: one.peak)
    baselines = tuple(search.baseline(of, parts) for of in (BP(), Checkpoint()))
    return Plan(best=best, candidates=tuple(shown), baselines=baselines, budget=budget)


def _beaten(one: Candidate, others: Sequence[Candidate]) -> bool:
    own = one.peak, one.seconds
    return any(o.peak <= own[0] and o.seconds <= own[1] and (o.peak, o.seconds) != own for o in others)

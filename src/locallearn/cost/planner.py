"""The planner: settings, of one rule or several, whose step fits a budget of memory, at the least predicted time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import ceil, log2
from typing import get_args

import torch
from torch import nn

from locallearn._chain.discovery import chain_of
from locallearn._chain.partition import Partition
from locallearn._chain.trace import trace
from locallearn._engine.recompute_plan import Memory
from locallearn._localize import net_of, profile_of
from locallearn._planning.depths import depth_text, variants
from locallearn._planning.prediction import MakeStepper, Prediction, nesterov_sgd, predict
from locallearn._planning.profile import LayerProfile, profile_layers
from locallearn._planning.search import Candidate, Search, fewest_modules
from locallearn._torch.device import channels_last
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted, format_bytes
from locallearn.rules import (
    BP,
    DGL,
    HPFF,
    MAN,
    MLAAN,
    AugLocal,
    Checkpoint,
    HiLo,
    InfoPro,
    Pooling,
    PredSim,
    Reduced,
    Rule,
    Wrapper,
)

DEPTHS = (2, 3, 4, 5, 6)
"""Depths of auxiliary networks to try, as in AugLocal's tables."""

RULES: tuple[Rule, ...] = (
    *(Pooling(), PredSim(), DGL(), DGL(channels=128, units=256), InfoPro(), AugLocal(), AugLocal(narrow=0.75)),
    *(Reduced(AugLocal()), HiLo(DGL()), HPFF(DGL(), fidelity="paper"), MAN(DGL()), MLAAN(DGL())),
)
"""The whole rules; DGL with slim heads; AugLocal narrower and on reduced features; the papers' wrappers around DGL."""

_Depths = Sequence[int] | Mapping[Rule, Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The result of `plan`.

    Attributes:
        best: the fastest candidate that fits.
        candidates: of one rule, the frontier of memory and time among all that were checked, by memory; of several,
            the fastest of each that fits, by time, or its leanest where none does.
        baselines: BP at the whole batch; then BP and checkpointing, in each `memory`, each with the fewest
            micro-batches that fit.
        budget: bytes.
        left_out: a sentence for each rule, or depth of it, that this network does not allow.
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    baselines: tuple[Candidate, ...]
    budget: int
    left_out: tuple[str, ...] = ()


def plan(
    model: nn.Module,
    rules: Rule | Sequence[Rule] = RULES,
    *,
    input_shape: tuple[int, int, int],
    batch: int,
    budget: int,
    depths: _Depths = DEPTHS,
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
        rules: one, or several to compare; by default the whole rules, and the papers' wrappers around DGL. Of several,
            one that does not work on this network is left out, and the plan says why.
        input_shape: channels, height, width of one image.
        batch: images in a batch.
        budget: bytes of the peak in total.
        depths: depths of auxiliary networks to try, where a rule has a setting `depth`; or those of each rule.
        layers: as for `localize`.
        make_stepper: makes the optimizer.
        autocast: dtype of mixed precision, or None.
        say: called with a sentence before each piece of work.

    Raises:
        LocalLearnError: no local rule fits; the error names the least that would, and BP or checkpointing that does.
    """
    planner = _Planner(model, input_shape, batch, layers, make_stepper, autocast, say)
    if isinstance(rules, Rule):
        candidates = planner.frontier(rules, depths, budget)
    else:
        candidates = planner.fastest_of_each(rules, depths, budget)
    baselines = planner.baselines(budget)
    fitting = [one for one in candidates if one.peak <= budget]
    if not fitting:
        raise _nothing_fits(budget, min(candidates, key=lambda one: one.peak), baselines, planner.left_out)
    return Plan(
        best=min(fitting, key=lambda one: (one.seconds, one.peak)),
        candidates=tuple(candidates),
        baselines=baselines,
        budget=budget,
        left_out=tuple(planner.left_out),
    )


class _Planner:
    """A chain, profiled once, of which steps by any rule are predicted."""

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, int, int],
        batch: int,
        layers: str | Sequence[str] | None,
        make_stepper: MakeStepper,
        autocast: torch.dtype | None,
        say: Callable[[str], None],
    ) -> None:
        if batch < 1:
            raise LocalLearnError(f"batch={batch} must be at least 1.")
        self.chain = trace(chain_of(model, input_shape, layers), input_shape)
        self.model, self.batch, self.most, self.say = model, batch, max(1, batch // 2), say
        self.make_stepper, self.autocast = make_stepper, autocast
        self.left_out: list[str] = []
        self.baseline = cache(self._baseline)

    def predict_step(self, rule: Rule, memory: Memory, partition: Partition, accumulate: int) -> Prediction:
        """The exact prediction of a step."""
        net = channels_last(net_of(self.model, self.chain, rule, partition, memory))
        return predict(net, self.batch, accumulate=accumulate, make_stepper=self.make_stepper, autocast=self.autocast)

    @cached_property
    def profile(self) -> LayerProfile:
        """The costs of each layer of the backbone."""
        self.say("profiling the backbone")
        return profile_layers(self.chain, "least", autocast=self.autocast)

    def frontier(self, rule: Rule, depths: _Depths, budget: int) -> list[Candidate]:
        """The frontier of memory and time of a rule; its leanest candidate alone where none fits."""
        search = self.search(rule, depths)
        fastest = search.fastest(budget, most=self.most)
        if fastest.peak > budget:
            return [fastest]
        search.check_frontier(fastest.accumulate)
        checked = search.checked(fastest.accumulate)
        return sorted((one for one in checked if not _beaten(one, checked)), key=lambda one: one.peak)

    def fastest_of_each(self, rules: Sequence[Rule], depths: _Depths, budget: int) -> list[Candidate]:
        """Of each rule the fastest candidate that fits, by time; then the leanest of each rule of which none does."""
        found: list[Candidate] = []
        for rule in rules:
            try:
                found.append(self.search(rule, depths).fastest(budget, most=self.most))
            except LocalLearnError as error:
                self.left_out.append(f"{rule} is left out: {error}")
        if not found:
            reasons = " ".join(self.left_out)
            raise LocalLearnError(f"none of the rules works on this network: give others by --rules. {reasons}")
        return sorted(found, key=lambda one: (one.peak > budget, one.seconds))

    def search(self, rule: Rule, depths: _Depths) -> Search:
        """The candidates of a rule with each of the depths."""
        if not is_planned(rule):
            raise LocalLearnError(f"{rule} has no auxiliary networks, so there is nothing to plan: give a local rule.")
        search, profile = self._empty_search(), self.profile
        every, plain = variants(rule, depths[rule] if isinstance(depths, Mapping) else depths), []
        for variant in every:
            self.say(f"profiling the auxiliary networks of {variant}{depth_text(variant)}")
            own = profile_of(profile, variant)
            if fewest_modules(variant, len(own.ends)) == 1:
                plain.append(variant)
            else:
                search.add(variant, own, get_args(Memory))
        layers = counted(len(self.chain), "layer")
        why = f"on the {layers} of this network it has no auxiliary networks, as backpropagation."
        if plain == every:
            raise LocalLearnError(why)
        self.left_out += [f"{variant}{depth_text(variant)} is left out: {why}" for variant in plain]
        return search

    def baselines(self, budget: int) -> tuple[Candidate, ...]:
        """BP at the whole batch; then BP and checkpointing in each `memory`, as large a batch as fits."""
        found = [self.baseline(BP(), "fast", 1)]
        found += [self.fitting_baseline(rule, m, budget) for rule in (BP(), Checkpoint()) for m in get_args(Memory)]
        return tuple(dict.fromkeys(found))

    def _empty_search(self) -> Search:
        return Search(self.chain.names, self.batch, self.predict_step, self.say)

    def _baseline(self, rule: Rule, memory: Memory, accumulate: int) -> Candidate:
        """A step without local modules."""
        parts = f", {accumulate} micro-batches" if accumulate > 1 else ""
        self.say(f"checking {rule}, {memory}{parts}")
        return self._empty_search().candidate(rule, memory, Partition(tuple(range(len(self.chain)))), accumulate)

    def fitting_baseline(self, rule: Rule, memory: Memory, budget: int) -> Candidate:
        """The same with the first of 1, 2, 4 ... micro-batches that fits, or with the most where none does."""
        count = 1
        while (one := self.baseline(rule, memory, count)).peak > budget and count < self.most:
            fewest = count * one.peak / budget  # parts of a batch need at least their share of its bytes
            count = min(2 ** ceil(log2(fewest)), self.most)
        return one


def is_planned(rule: Rule) -> bool:
    """Whether a rule has auxiliary networks, so that there is a partition to plan."""
    return type(rule).auxiliary is not Rule.auxiliary or isinstance(rule, Wrapper)


def _nothing_fits(
    budget: int, least: Candidate, baselines: Sequence[Candidate], left_out: Sequence[str]
) -> LocalLearnError:
    fitting = [one for one in baselines if one.peak <= budget]
    plain = min(fitting, key=lambda one: one.seconds) if fitting else min(baselines, key=lambda one: one.peak)
    what, needs = ("no local rule", "fits, with") if fitting else ("nothing", "needs")
    modules = f"{depth_text(least.rule)}, {counted(len(least.modules), 'module')}"
    sentence = (
        f"{what} fits in {format_bytes(budget)}: the least is {format_bytes(least.peak)}, with {least.rule}{modules},"
        f" {_settings_of(least)}; {plain.rule} {needs} {format_bytes(plain.peak)}: {_settings_of(plain)}."
    )
    return LocalLearnError(" ".join((sentence, *left_out)))


def _settings_of(one: Candidate) -> str:
    return f"memory={one.memory} and {counted(one.micro_batch, 'image')} at a time (accumulate {one.accumulate})"


def _beaten(one: Candidate, others: Sequence[Candidate]) -> bool:
    own = one.peak, one.seconds
    return any(o.peak <= own[0] and o.seconds <= own[1] and (o.peak, o.seconds) != own for o in others)

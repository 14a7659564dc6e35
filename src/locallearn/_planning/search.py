"""The search for the fastest partition that fits a budget: dynamic programming on profiles, then exact checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import mean

from locallearn._chain.partition import Partition
from locallearn._engine.recompute_plan import Memory
from locallearn._planning.depths import depth_text
from locallearn._planning.dynamic_program import cheapest, smallest_largest
from locallearn._planning.prediction import Prediction
from locallearn._planning.profile import Profile
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import counted
from locallearn.rules import Rule

_CHECKS = 6
"""Most candidates that are checked on the way to the fastest one that fits."""

_GAIN = 0.01
"""A candidate is checked only if it should save at least this share of the time of the best so far."""

_OF_FRONTIER = 3
"""Candidates of the frontier of memory and time that are checked."""

_NEAR = 1.15
"""The leanest candidate is checked if its estimated peak is at most this multiple of the budget."""

_STATE = 3
"""Copies of each trained parameter: itself, its gradient, its momentum."""

_LIMITS = 16
"""Limits of a module's peak, from the least possible to that of the whole network, each with its fastest partition."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings, and the predicted cost of a step with them.

    Attributes:
        rule: the rule, with its depth.
        memory: "fast", "lean" or "least".
        modules: names of the last layers of the local modules.
        accumulate: number of micro-batches.
        micro_batch: images in each of them.
        peak: predicted peak in total, bytes.
        macs: multiply-accumulates for the whole batch.
        seconds: predicted time for the whole batch, for comparisons.
    """

    rule: Rule
    memory: Memory
    modules: tuple[str, ...]
    accumulate: int
    micro_batch: int
    peak: int
    macs: int
    seconds: float


@dataclass(frozen=True)
class _Estimate:
    """A candidate as its profile predicts it.

    Attributes:
        fixed: bytes that do not depend on the batch.
        per_image: bytes per image.
        seconds: time per image.
    """

    rule: Rule
    memory: Memory
    partition: Partition
    fixed: float
    per_image: float
    seconds: float

    @property
    def settings(self) -> tuple[Rule, Memory]:
        return self.rule, self.memory


@dataclass
class Search:
    """Candidates of one or more rules and settings of `memory`: estimated from profiles, some checked exactly.

    To check a candidate is to build it and predict its step as a whole. The ratio of exact to estimated values then
    corrects the estimates of other candidates, until the one that should be the fastest has been checked and fits.

    Args:
        names: the chain's layers.
        batch: images in a batch.
        predict: builds a network and predicts its step, from rule, memory, partition and number of micro-batches.
        say: called with a sentence before each check.
    """

    names: Sequence[str]
    batch: int
    predict: Callable[[Rule, Memory, Partition, int], Prediction]
    say: Callable[[str], None] = lambda _: None
    _estimates: list[_Estimate] = field(default_factory=list, init=False)
    _checked: dict[tuple[_Estimate, int], Candidate] = field(default_factory=dict, init=False)
    _peak_ratios: dict[tuple[Rule, Memory], float] = field(default_factory=dict, init=False)
    _time_ratios: dict[tuple[Rule, Memory], float] = field(default_factory=dict, init=False)

    def add(self, rule: Rule, profile: Profile, memories: Iterable[Memory]) -> None:
        """Add the fastest partitions below each of several limits, for each setting of `memory`."""
        fewest = fewest_modules(rule, len(profile.ends))
        for memory in memories:
            lowest = profile.step(Partition(profile.ends), memory)[0] * 1.001
            highest = max(lowest, profile.peak(0, profile.ends[-1], memory))
            limits = (lowest * (highest / lowest) ** (step / (_LIMITS - 1)) for step in range(_LIMITS))
            for partition in dict.fromkeys(fastest(profile, memory, limit, fewest) for limit in limits):
                if partition is None:
                    continue
                peak, seconds = profile.step(partition, memory)
                fixed, per_image = _STATE * profile.trained(partition.ends), profile.layers.inputs[0] + peak
                self._estimates.append(_Estimate(rule, memory, partition, fixed, per_image, seconds))

    def checked(self, accumulate: int) -> list[Candidate]:
        """The candidates with this number of micro-batches that were checked."""
        return [candidate for candidate in self._checked.values() if candidate.accumulate == accumulate]

    def fastest(self, budget: int, *, most: int = 1) -> Candidate:
        """The fastest candidate that fits in `budget` bytes, with as few micro-batches as possible, at most `most`.

        Where nothing fits it is the leanest of all, whose peak is above the budget.
        """
        accumulate = 1
        while True:
            is_last = accumulate >= most
            if is_last or self._peak(self._leanest(accumulate), accumulate) <= _NEAR * budget:
                best = self._fastest_with(budget, accumulate)
                if is_last or best.peak <= budget:
                    return best
            accumulate = self._next(accumulate, budget, most)

    def check_frontier(self, accumulate: int) -> None:
        """Check the leanest candidate, the fastest one, and some between that no other should beat in both."""
        ordered = sorted(self._estimates, key=lambda e: (self._peak(e, accumulate), self._seconds(e, accumulate)))
        front: list[_Estimate] = []
        for estimate in ordered:
            if not front or self._seconds(estimate, accumulate) < self._seconds(front[-1], accumulate):
                front.append(estimate)
        count = min(_OF_FRONTIER, len(front))
        for step in range(count):
            self._check(front[round(step * (len(front) - 1) / max(1, count - 1))], accumulate)

    def _fastest_with(self, budget: int, accumulate: int) -> Candidate:
        for _ in range(_CHECKS):
            fitting = [estimate for estimate in self._estimates if self._peak(estimate, accumulate) <= budget]
            estimate = min(fitting, key=lambda e: self._seconds(e, accumulate), default=self._leanest(accumulate))
            known = (one.seconds for one in self.checked(accumulate) if one.peak <= budget)
            is_checked = (estimate, accumulate) in self._checked
            if is_checked or self._seconds(estimate, accumulate) > (1 - _GAIN) * min(known, default=inf):
                break
            self._check(estimate, accumulate)
        if all(candidate.peak > budget for candidate in self.checked(accumulate)):
            self._check(self._leanest(accumulate), accumulate)
        return min(self.checked(accumulate), key=lambda one: (0, one.seconds) if one.peak <= budget else (1, one.peak))

    def _leanest(self, accumulate: int) -> _Estimate:
        return min(self._estimates, key=lambda estimate: self._peak(estimate, accumulate))

    def _next(self, accumulate: int, budget: int, most: int) -> int:
        """The next number of micro-batches with fewer images in each, with which a candidate should fit."""
        for more in range(accumulate + 1, most):
            has_fewer_images = self._images(more) < self._images(accumulate)
            if has_fewer_images and self._peak(self._leanest(more), more) <= budget:
                return more
        return most

    def candidate(self, rule: Rule, memory: Memory, partition: Partition, accumulate: int) -> Candidate:
        """A candidate with its exact prediction."""
        prediction = self.predict(rule, memory, partition, accumulate)
        return Candidate(
            rule=rule,
            memory=memory,
            modules=tuple(self.names[end] for end in partition.ends),
            accumulate=accumulate,
            micro_batch=self._images(accumulate),
            peak=prediction.peak.total,
            macs=prediction.macs,
            seconds=prediction.seconds,
        )

    def _check(self, estimate: _Estimate, accumulate: int) -> None:
        if (estimate, accumulate) in self._checked:
            return
        rule, memory, partition = estimate.rule, estimate.memory, estimate.partition
        self.say(f"checking {rule}{depth_text(rule)}, {counted(len(partition), 'module')}, {memory}")
        images = self._images(accumulate)
        candidate = self._checked[estimate, accumulate] = self.candidate(rule, memory, partition, accumulate)
        self._peak_ratios[estimate.settings] = candidate.peak / (estimate.fixed + estimate.per_image * images)
        self._time_ratios[estimate.settings] = candidate.seconds / (estimate.seconds * images * accumulate)

    def _images(self, accumulate: int) -> int:
        return -(-self.batch // accumulate)

    def _peak(self, estimate: _Estimate, accumulate: int) -> float:
        if (candidate := self._checked.get((estimate, accumulate))) is not None:
            return candidate.peak
        estimated = estimate.fixed + estimate.per_image * self._images(accumulate)
        return estimated * _ratio(self._peak_ratios, estimate)

    def _seconds(self, estimate: _Estimate, accumulate: int) -> float:
        if (candidate := self._checked.get((estimate, accumulate))) is not None:
            return candidate.seconds
        return estimate.seconds * self._images(accumulate) * accumulate * _ratio(self._time_ratios, estimate)


def _ratio(ratios: Mapping[tuple[Rule, Memory], float], estimate: _Estimate) -> float:
    """Exact over estimated: the last of these settings, else the mean with this `memory`, else that of all."""
    alike = [ratio for (_, memory), ratio in ratios.items() if memory == estimate.memory] or list(ratios.values())
    return ratios.get(estimate.settings, mean(alike) if alike else 1.0)


def fastest(profile: Profile, memory: Memory, limit: float, fewest: int) -> Partition | None:
    """The partition of the least time, into `fewest` modules or more, whose modules each stay below a limit.

    Args:
        profile: the profile.
        memory: "fast", "lean" or "least".
        limit: peak bytes of a module per image.
        fewest: number of modules that the rule needs.

    Returns:
        The partition, or None where no partition stays below the limit.
    """
    final = profile.ends[-1]

    def seconds(first: int, last: int) -> float:
        is_whole_chain = first == 0 and last == final
        return inf if is_whole_chain and fewest > 1 else profile.seconds(first, last, memory, limit)

    ends = cheapest(seconds, profile.ends)
    if ends is not None and len(ends) < fewest:
        ends = smallest_largest(lambda i, j: profile.peak(i, j, memory), profile.ends, fewest)
    return None if ends is None else Partition(ends)


def fewest_modules(rule: Rule, most: int) -> int:
    """Fewest modules with which a rule is more than backpropagation, or 1 where no number up to `most` is.

    Some objective must end before the last module. HiLo over two modules, or MLAAN over three, has the classifier's
    loss alone: it is backpropagation with other learning rates, which takes more time and saves no memory.
    """
    for modules in range(2, most + 1):
        try:
            spans = rule.spans(modules)
        except LocalLearnError:
            continue
        if any(span.weight and span.last < modules - 1 for span in spans):
            return modules
    return 1

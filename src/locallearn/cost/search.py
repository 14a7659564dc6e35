"""The planner's search: partitions as their parts foretell them, of which some are looked at whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from locallearn._chain.chain import TracedChain
from locallearn._chain.partition import Partition
from locallearn._engine.recompute_plan import Memory
from locallearn._planning.budget import highest
from locallearn._planning.by_cost import fastest, least_modules
from locallearn._planning.profile import Profile
from locallearn._utils.byte_size import format_bytes
from locallearn._utils.errors import LocalLearnError
from locallearn.cost.depths import depth_text
from locallearn.cost.predicted_time import Prediction
from locallearn.rules import Rule

_LIMITS = 12
"""Steps between the lowest and the highest limit of a module's peak."""

_CHECKS = 6
"""Most candidates that are looked at whole for the best; the others are told from their parts."""

_NEAR = 1.15
"""How far above the budget the leanest candidate may be foretold and still be looked at."""

_SHOWN = 3
"""Candidates of the frontier that are looked at besides."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings, and what a step with them should need.

    Attributes:
        rule: the rule, with its depth.
        memory: "fast" or "lean".
        modules: names of the last layers of the local modules.
        accumulate: number of micro-batches.
        micro_batch: images in one of them.
        peak: predicted peak in total, bytes.
        macs: multiply-accumulates for the whole batch.
        seconds: predicted time for the whole batch, to be compared.
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
class _Sketch:
    """A candidate as its parts foretell it."""

    rule: Rule
    memory: Memory
    partition: Partition
    fixed: float
    """Bytes, whatever the batch."""
    per_image: float
    seconds: float
    """For each image."""

    @property
    def kind(self) -> tuple[Rule, Memory]:
        return self.rule, self.memory


class Search:
    """Sketches, and what looking at some of them whole has told about all."""

    def __init__(
        self,
        chain: TracedChain,
        build: Callable[..., object],
        batch: int,
        look: Callable[..., Prediction],
        say: Callable[[str], None],
    ) -> None:
        self._chain, self._build, self._batch, self._look, self._say = chain, build, batch, look, say
        self._sketches: list[_Sketch] = []
        self._checked: dict[tuple[_Sketch, int], Candidate] = {}
        self._memory_off: dict[tuple[Rule, Memory], float] = {}
        self._time_off: dict[tuple[Rule, Memory], float] = {}

    def add(self, rule: Rule, found: Profile) -> None:
        """Add for both ways with memory the fastest partitions below each of some limits."""
        least = least_modules(rule, len(found.ends))
        for memory in ("fast", "lean"):
            low = highest(found, Partition(found.ends), memory) * 1.001
            high = found.peak(0, len(self._chain) - 1, memory)
            limits = [low * (high / low) ** (step / (_LIMITS - 1)) for step in range(_LIMITS)]
            partitions = {fastest(found, memory, limit, least): limit for limit in limits}
            for groups, limit in partitions.items():
                if groups is None:
                    continue
                spans = [groups.layers(module) for module in range(len(groups))]
                sketch = _Sketch(
                    rule,
                    memory,
                    groups,
                    fixed=3 * found.trained(groups.ends),
                    per_image=found.inputs[0] + highest(found, groups, memory),
                    seconds=sum(min(found.seconds(s[0], s[-1], memory, limit), 1e9) for s in spans),
                )
                self._sketches.append(sketch)

    def best(self, budget: int) -> Candidate:
        """The fastest that fits, with as few micro-batches as can be."""
        parts, checks = 1, 0
        while True:
            fitting = [s for s in self._sketches if self._peak(s, parts) <= budget]
            if not fitting:
                leanest = min(self._sketches, key=lambda s: self._peak(s, parts))
                if (leanest, parts) not in self._checked and self._peak(leanest, parts) <= _NEAR * budget:
                    self.checked(leanest, parts)
                else:
                    parts = self._more_parts(parts, budget)
                continue
            sketch = min(fitting, key=lambda s: self._seconds(s, parts))
            if (sketch, parts) in self._checked:
                return self._checked[sketch, parts]
            checks += 1
            if checks > _CHECKS:
                sure = [s for s in fitting if (s, parts) in self._checked]
                if sure:
                    return self._checked[min(sure, key=lambda s: self._seconds(s, parts)), parts]
                sketch = min(fitting, key=lambda s: self._peak(s, parts))
            self.checked(sketch, parts)

    def _more_parts(self, parts: int, budget: int) -> int:
        """The next number of micro-batches with which something should fit."""
        for more in range(parts + 1, max(1, self._batch // 2) + 1):
            fewer_images = self._micro(more) < self._micro(parts)
            if fewer_images and any(self._peak(sketch, more) <= budget for sketch in self._sketches):
                return more
        most = max(parts, self._batch // 2, 1)
        least = self.checked(min(self._sketches, key=lambda s: self._peak(s, most)), most)
        if least.peak <= budget:
            return most
        images = "image" if least.micro_batch == 1 else "images"
        raise LocalLearnError(
            f"nothing fits in {format_bytes(budget)}: the least is {format_bytes(least.peak)}, with {least.rule}"
            f"{depth_text(least.rule)}, {len(least.modules)} modules, memory={least.memory} and {least.micro_batch}"
            f" {images} at a time (batch {self._batch}, accumulate {least.accumulate})."
        )

    def checked(self, sketch: _Sketch, parts: int) -> Candidate:
        """A candidate, looked at whole."""
        if (sketch, parts) not in self._checked:
            ends = tuple(self._chain.names[end] for end in sketch.partition.ends)
            foretold_peak, foretold_time = self._raw(sketch, parts)
            found = self._candidate(sketch.rule, sketch.memory, ends, parts)
            self._checked[sketch, parts] = found
            self._memory_off[sketch.kind] = found.peak / foretold_peak
            self._time_off[sketch.kind] = found.seconds / foretold_time
        return self._checked[sketch, parts]

    def baseline(self, rule: Rule, parts: int) -> Candidate:
        """Backpropagation or checkpointing."""
        return self._candidate(rule, "fast", self._chain.names, parts)

    def known(self, parts: int) -> list[Candidate]:
        """What was looked at."""
        return [found for (_, number), found in self._checked.items() if number == parts]

    def frontier(self, parts: int) -> list[_Sketch]:
        """Sketches from the leanest to the fastest, of which none should be beaten in both."""
        ordered = sorted(self._sketches, key=lambda s: (self._peak(s, parts), self._seconds(s, parts)))
        front: list[_Sketch] = []
        for sketch in ordered:
            if not front or self._seconds(sketch, parts) < self._seconds(front[-1], parts):
                front.append(sketch)
        count = min(_SHOWN, len(front))
        return [front[round(i * (len(front) - 1) / max(1, count - 1))] for i in range(count)]

    def _candidate(self, rule: Rule, memory: Memory, ends: Sequence[str], parts: int) -> Candidate:
        self._say(f"checking {rule}{depth_text(rule)}, {len(ends)} modules, {memory}")
        net = self._build(rule, modules=list(ends), memory=memory).to(memory_format=torch.channels_last)  # pyright: ignore
        found = self._look(net, self._micro(parts))
        return Candidate(
            rule=rule,
            memory=memory,
            modules=tuple(ends),
            accumulate=parts,
            micro_batch=self._micro(parts),
            peak=found.peak.total,
            macs=found.macs * parts,
            seconds=found.seconds * parts,
        )

    def _micro(self, parts: int) -> int:
        return -(-self._batch // parts)

    def _raw(self, sketch: _Sketch, parts: int) -> tuple[float, float]:
        return sketch.fixed + sketch.per_image * self._micro(parts), sketch.seconds * self._batch

    def _peak(self, sketch: _Sketch, parts: int) -> float:
        if (sketch, parts) in self._checked:
            return self._checked[sketch, parts].peak
        return self._raw(sketch, parts)[0] * _off(self._memory_off, sketch)

    def _seconds(self, sketch: _Sketch, parts: int) -> float:
        if (sketch, parts) in self._checked:
            return self._checked[sketch, parts].seconds
        return self._raw(sketch, parts)[1] * _off(self._time_off, sketch)


def _off(known: Mapping[tuple[Rule, Memory], float], sketch: _Sketch) -> float:
    """What was found for each that was foretold: of this rule and memory, else of those like it."""
    alike = [off for (_, memory), off in known.items() if memory == sketch.memory] or list(known.values())
    return known.get(sketch.kind, sum(alike) / len(alike) if alike else 1.0)

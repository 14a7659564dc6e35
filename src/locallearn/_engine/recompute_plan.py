"""What each part of a network recomputes in its backward pass: chosen by bytes that are counted without computing."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, inf
from typing import Any, Literal

import torch
from torch import Tensor, nn

from locallearn._chain.structure import structure
from locallearn._engine.neighbours import ALONE
from locallearn._engine.step import Step
from locallearn._objectives.auxiliary import Auxiliary, Head, blocks_of
from locallearn._recompute.policy import STORE_ALL, RecomputePlan, RecomputePolicy
from locallearn._torch import private_api
from locallearn._torch.live_bytes import LiveBytes
from locallearn._torch.private_api import Module
from locallearn._utils.errors import UnpredictableError

Memory = Literal["fast", "lean", "least"]

Choice = tuple[RecomputePolicy, RecomputePolicy]
"""The policy of a graph segment, and that of the auxiliary networks at its end."""

_ACTIVATIONS = RecomputePolicy(activations=True)
_HALF, _BLOCKS = replace(_ACTIVATIONS, blocks=0.5), replace(_ACTIVATIONS, blocks=1)
_OUTPUT = replace(_ACTIVATIONS, output=True)
_OUTPUT_PRODUCTS, _BLOCK_PRODUCTS = replace(_OUTPUT, products=True), replace(_BLOCKS, products=True)
_FAST: tuple[Choice, ...] = ((STORE_ALL, STORE_ALL), (_ACTIVATIONS, _ACTIVATIONS))
_LEAN: tuple[Choice, ...] = (
    *_FAST,
    (_ACTIVATIONS, _HALF),
    (_ACTIVATIONS, _BLOCKS),
    (_BLOCKS, _ACTIVATIONS),
    (_BLOCKS, _HALF),
    (_BLOCKS, _BLOCKS),
)
_LEAST: tuple[Choice, ...] = (
    *_LEAN,
    (_OUTPUT, _ACTIVATIONS),
    (_OUTPUT, _BLOCKS),
    (_OUTPUT_PRODUCTS, _ACTIVATIONS),
    (_OUTPUT_PRODUCTS, _BLOCK_PRODUCTS),
    (_BLOCK_PRODUCTS, _BLOCK_PRODUCTS),
)
CHOICES: dict[Memory, tuple[Choice, ...]] = {"fast": _FAST, "lean": _LEAN, "least": _LEAST}
"""What a segment may recompute under each setting of `memory`, from the fastest choice to the leanest."""

_TOLERATED = {"fast": 1.12, "lean": 1.0, "least": 1.0}
"""Nothing is recomputed while the step's peak without it is at most this multiple of the least that can be reached."""

_NEAR = {"fast": 1.01, "lean": 1.01, "least": 1.05}
"""Each segment takes its fastest choice whose peak is at most this multiple of the least."""

_WORTH = 1.1
"""`least` is `lean` where the peak of `lean` is at most this multiple of its own, as convolutions take long."""

_LOW = 0.35
"""Segments whose peak is at most this share of the highest never become the highest: they store everything."""

_BATCH = 64


class _Alone(Step):
    """A step over one of several graph segments, as it runs between the others."""

    def _has_next(self, span: range) -> bool:
        return True


@dataclass
class _SegmentProbe:
    """A step, or the part of it over one graph segment, whose peak memory is counted apart from the rest."""

    step: Step
    _counted: dict[Hashable, list[float]] = field(default_factory=dict)

    @cached_property
    def parts(self) -> nn.ModuleList:
        """All modules and auxiliary networks."""
        return nn.ModuleList([*self.step.modules, *(objective.auxiliary for objective in self.step.objectives)])

    @cached_property
    def signature(self) -> Hashable:
        """Equal for probes that take equal memory."""
        return structure(self.parts), self.step.inputs.shape, self.step.inputs.dtype

    def peaks(self, choice: Choice) -> list[float]:
        """Peak bytes up to the end of each graph segment; infinite where this choice is impossible."""
        effect = choice[0], tuple(recomputed_part(choice[1], objective.auxiliary) for objective in self.step.objectives)
        if effect not in self._counted:
            self._counted[effect] = self._count(choice)
        return self._counted[effect]

    def _count(self, choice: Choice) -> list[float]:
        step, spans = self.step, self.step.spans
        plan = RecomputePlan(segments=(choice[0],) * len(spans), objectives=(choice[1],) * len(step.objectives))
        known = [*self.parts.parameters(), *self.parts.buffers(), step.inputs, step.images, step.labels]
        input_bytes = 0 if step.inputs is step.images else step.inputs.nbytes  # alive, as the previous module's output
        peaks: list[float] = []
        torch.clear_autocast_cache()  # else weights that were cast before would not be counted
        try:
            with LiveBytes(known=known, parameters=self.parts.parameters()) as live:
                replace(step, plan=plan, on_segment=lambda: peaks.append(live.take_peak() + input_bytes)).run()
        except UnpredictableError:
            raise
        except Exception:  # such parts cannot run twice; an error that every choice has is raised by the step itself
            return [inf] * len(spans)
        return peaks


def plan_recompute(step: Step, memory: Memory) -> RecomputePlan:
    """The fastest plan whose peak is near the least that can be reached.

    `fast` may recompute normalisations and activations; `lean` also modules, and blocks of auxiliary networks; `least`
    also convolutions one by one, and outputs of modules. Segments that stay below the step's peak anyway store
    everything.

    Args:
        step: the step; of its batch only shape, type and device matter.
        memory: "fast", "lean" or "least".
    """
    if any(not (objective.first in step.part and objective.last in step.part) for objective in step.objectives):
        return _plan_of_part(step, memory)
    objectives, spans = step.objectives, step.spans
    overlapping = sum(o.first <= span.start <= o.last for o in objectives for span in spans) > len(spans)
    chosen = [0] * len(spans)
    if memory != "fast" or not overlapping:  # overlapping objectives take long to count, and `fast` gains little there
        chosen = _chosen(step, memory, overlapping)
    segment_at = {span[-1]: index for index, span in enumerate(spans)}
    last_over = [max(segment_at[o.last] for o in objectives if o.first <= span.start <= o.last) for span in spans]
    return RecomputePlan(
        segments=tuple(
            max((CHOICES[memory][c][0] for c in chosen[index : last + 1]), key=_leanness)
            for index, last in enumerate(last_over)
        ),
        objectives=tuple(CHOICES[memory][chosen[segment_at[o.last]]][1] for o in objectives),
    )


def recomputed_part(policy: RecomputePolicy, auxiliary: Auxiliary) -> Hashable:
    """Equal for policies under which an auxiliary network recomputes the same: most have few blocks, or none."""
    return policy.activations, policy.products, ceil(policy.blocks * len(blocks_of(auxiliary)))


def choose(peaks: Sequence[Sequence[float]], memory: Memory) -> list[int]:
    """For each segment the index of its fastest choice that is near the least peak the step can reach.

    Args:
        peaks: for each segment its peak under the `CHOICES` of `memory`, in their order.
        memory: "fast", "lean" or "least".
    """
    least = max(map(min, peaks))
    if least == inf or max(by_choice[0] for by_choice in peaks) <= _TOLERATED[memory] * least:
        return [0] * len(peaks)
    chosen = [next(c for c, peak in enumerate(by_choice) if peak <= _NEAR[memory] * least) for by_choice in peaks]
    if memory == "least":
        lean = choose([by_choice[: len(_LEAN)] for by_choice in peaks], "lean")
        if _highest(peaks, lean) <= _WORTH * _highest(peaks, chosen):
            return lean
    return chosen


def _highest(peaks: Sequence[Sequence[float]], chosen: Sequence[int]) -> float:
    """The step's peak under a choice for each segment."""
    return max(by_choice[c] for by_choice, c in zip(peaks, chosen, strict=True))


def _plan_of_part(step: Step, memory: Memory) -> RecomputePlan:
    """The plan of a step whose objectives reach out of its modules: that of their parts within.

    Where later objectives alone train a module, its peak is not known here, and everything is stored.
    """
    begin, end = step.part.start, step.part.stop
    ending = [index for index, objective in enumerate(step.objectives) if objective.last in step.part]
    within = [
        replace(o, first=max(o.first - begin, 0), last=o.last - begin) for o in (step.objectives[i] for i in ending)
    ]
    alone = replace(step, objectives=within, first=0, neighbours=ALONE)
    policies = [STORE_ALL] * len(step.objectives)
    trained = {module for o in within for module in range(o.first, o.last + 1)}
    spans = [range(span.start - begin, span.stop - begin) for span in step.spans]
    if trained != set(range(end - begin)) or alone.spans != spans:
        return RecomputePlan(segments=(STORE_ALL,) * len(spans), objectives=tuple(policies))
    plan = plan_recompute(alone, memory)
    for index, policy in zip(ending, plan.objectives, strict=True):
        policies[index] = policy
    return RecomputePlan(segments=plan.segments, objectives=tuple(policies))


def _leanness(policy: RecomputePolicy) -> float:
    return policy.activations + policy.products + policy.blocks  # no objective shares a segment whose output is freed


def _chosen(step: Step, memory: Memory, overlapping: bool) -> list[int]:
    """For each graph segment the index of its choice."""
    with private_api.fake_mode() as mode:
        parts: list = list(countable_copy(_SegmentProbe(step).parts, mode))
        auxiliaries = parts[len(step.modules) :]
        objectives = [replace(o, auxiliary=part) for o, part in zip(step.objectives, auxiliaries, strict=True)]
        images, labels, features = (
            mode.from_tensor(t[:1]).expand(_BATCH, *t.shape[1:]).clone()
            for t in (step.images, step.labels, step.inputs)
        )
        copy = _Alone(modules=parts[: len(step.modules)], objectives=objectives, images=images, labels=labels)
        copy.features = None if step.features is None else features
        probes = [_SegmentProbe(copy)] if overlapping else list(_probes(copy))
        peaks = _peaks({probe.signature: probe for probe in probes}, CHOICES[memory])
    return choose([list(of) for probe in probes for of in zip(*peaks[probe.signature], strict=True)], memory)


def _peaks(probes: dict[Hashable, _SegmentProbe], choices: Sequence[Choice]) -> dict[Hashable, list[list[float]]]:
    """For each probe its peaks by choice, then by segment.

    The highest probe is counted first, under all choices. Its least peak is a floor that the step cannot go below, so
    any other probe is counted only up to its first choice at or below the floor.
    """
    peaks = {key: [probe.peaks(choices[0])] for key, probe in probes.items()}
    highest = max(max(by_choice[0]) for by_choice in peaks.values())
    floor = 0.0
    for key, by_choice in sorted(peaks.items(), key=lambda item: -max(item[1][0])):
        is_low = max(by_choice[0]) <= _LOW * highest
        for choice in () if is_low else choices[1:]:
            if _least(by_choice) <= floor:
                break
            by_choice.append(probes[key].peaks(choice))
        floor = max(floor, _least(by_choice))
    return peaks


def _least(by_choice: Sequence[Sequence[float]]) -> float:
    """The highest of the segments when each takes its own leanest choice."""
    return max(map(min, zip(*by_choice, strict=True)))


def countable_copy(module: Module, mode: Any) -> Module:
    """A fake copy to count bytes and operators; its heads' loss takes any labels, and calls nothing of the user's."""
    copy = private_api.fake_copy(module, mode)
    for part in copy.modules():
        if isinstance(part, Head):
            del part.loss  # it may be a module
            part.loss = sum_of_outputs
    return copy


def sum_of_outputs(outputs: Tensor, labels: Tensor) -> Tensor:
    """A loss of negligible cost."""
    return outputs.sum()


def _probes(step: Step) -> Iterator[_SegmentProbe]:
    """One for each objective; objectives do not overlap."""
    features = step.inputs
    for objective in step.objectives:
        modules = step.modules[objective.first : objective.last + 1]
        own = replace(objective, first=0, last=len(modules) - 1)
        yield _SegmentProbe(replace(step, modules=modules, objectives=[own], features=features))
        with torch.no_grad():
            for module in modules:
                features = module(features)

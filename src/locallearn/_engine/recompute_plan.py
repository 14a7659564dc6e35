"""What each part of a network recomputes in its backward pass: chosen by bytes that are counted without computing."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, inf
from typing import Literal

import torch
from torch import Tensor, nn

from locallearn._chain.local_module import LocalModule
from locallearn._engine.segment import segment_spans
from locallearn._engine.step import Step
from locallearn._objectives.auxiliary import Auxiliary, Head, blocks_of
from locallearn._objectives.objective import Objective
from locallearn._recompute.policy import STORE_ALL, RecomputePlan, RecomputePolicy
from locallearn._torch import private_api
from locallearn._torch.live_bytes import LiveBytes

Memory = Literal["fast", "lean"]

Choice = tuple[RecomputePolicy, RecomputePolicy]
"""The policy of a graph segment, and that of the auxiliary networks at its end."""

_ACTIVATIONS = RecomputePolicy(activations=True)
_HALF, _BLOCKS = replace(_ACTIVATIONS, blocks=0.5), replace(_ACTIVATIONS, blocks=1)
CHOICES: dict[Memory, tuple[Choice, ...]] = {
    "fast": ((STORE_ALL, STORE_ALL), (_ACTIVATIONS, _ACTIVATIONS)),
    "lean": (
        (STORE_ALL, STORE_ALL),
        (_ACTIVATIONS, _ACTIVATIONS),
        (_ACTIVATIONS, _HALF),
        (_ACTIVATIONS, _BLOCKS),
        (_BLOCKS, _ACTIVATIONS),
        (_BLOCKS, _HALF),
        (_BLOCKS, _BLOCKS),
    ),
}
"""What a segment may recompute under each setting of `memory`, from the fastest choice to the leanest."""

_TOLERATED = {"fast": 1.12, "lean": 1.0}
"""Nothing is recomputed while the step's peak without it is at most this multiple of the least that can be reached."""

_NEAR = 1.01
"""Each segment takes its fastest choice whose peak is at most this multiple of the least."""

_LOW = 0.35
"""Segments whose peak is at most this share of the highest never become the highest: they store everything."""

_BATCH = 64


@dataclass
class _SegmentProbe:
    """Modules and objectives whose peak memory is counted apart from the rest of the step.

    Attributes:
        modules: the modules.
        objectives: the objectives over them, numbered from the first of them.
        features: their input.
    """

    modules: list[LocalModule]
    objectives: list[Objective]
    features: Tensor
    _counted: dict[Hashable, list[float]] = field(default_factory=dict)

    @cached_property
    def signature(self) -> Hashable:
        """Equal for probes that take equal memory."""
        parts = [*self.modules, *(objective.auxiliary for objective in self.objectives)]
        weights = [(tuple(p.shape), p.dtype, p.requires_grad) for part in parts for p in part.parameters()]
        return str(parts), tuple(weights), tuple(self.features.shape), self.features.dtype

    def peaks(self, images: Tensor, labels: Tensor, choice: Choice) -> list[float]:
        """Peak bytes up to the end of each graph segment; infinite where this choice is impossible."""
        effect = choice[0], tuple(recomputed_part(choice[1], objective.auxiliary) for objective in self.objectives)
        if effect not in self._counted:
            self._counted[effect] = self._count(images, labels, choice)
        return self._counted[effect]

    def _count(self, images: Tensor, labels: Tensor, choice: Choice) -> list[float]:
        spans = segment_spans(self.objectives)
        plan = RecomputePlan(segments=(choice[0],) * len(spans), objectives=(choice[1],) * len(self.objectives))
        parts = nn.ModuleList([*self.modules, *(objective.auxiliary for objective in self.objectives)])
        known = [*parts.parameters(), *parts.buffers(), self.features, images, labels]
        input_bytes = 0 if self.features is images else self.features.nbytes  # alive, as the previous module's output
        peaks: list[float] = []
        torch.clear_autocast_cache()  # else weights that were cast before would not be counted
        try:
            with LiveBytes(known=known, parameters=parts.parameters()) as live:
                Step(
                    modules=self.modules,
                    objectives=self.objectives,
                    images=images,
                    labels=labels,
                    features=self.features,
                    plan=plan,
                    on_segment=lambda: peaks.append(live.take_peak() + input_bytes),
                ).run()
        except Exception:  # such parts cannot run twice; an error that every choice has is raised by the step itself
            return [inf] * len(spans)
        return peaks


def plan_recompute(
    modules: Sequence[LocalModule],
    objectives: Sequence[Objective],
    images: Tensor,
    labels: Tensor,
    memory: Memory,
) -> RecomputePlan:
    """The fastest plan whose peak is near the least that can be reached.

    `fast` may recompute normalisations and activations; `lean` also modules, and blocks of auxiliary networks. Segments
    that stay below the step's peak anyway store everything.

    Args:
        modules: the local modules.
        objectives: the objectives over them.
        images: a batch, of which only shape, type and device matter.
        labels: its labels, likewise.
        memory: "fast" or "lean".
    """
    spans = segment_spans(objectives)
    overlapping = sum(o.first <= span.start <= o.last for o in objectives for span in spans) > len(spans)
    chosen = [0] * len(spans)
    if memory == "lean" or not overlapping:  # overlapping objectives take long to count, and `fast` gains little there
        chosen = _chosen(modules, objectives, images, labels, memory, overlapping)
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
    return policy.activations, ceil(policy.blocks * len(blocks_of(auxiliary)))


def choose(peaks: Sequence[Sequence[float]], memory: Memory) -> list[int]:
    """For each segment the index of its fastest choice that is near the least peak the step can reach.

    Args:
        peaks: for each segment its peak under the `CHOICES` of `memory`, in their order.
        memory: "fast" or "lean".
    """
    least = max(map(min, peaks))
    if least == inf or max(by_choice[0] for by_choice in peaks) <= _TOLERATED[memory] * least:
        return [0] * len(peaks)
    return [next(c for c, peak in enumerate(by_choice) if peak <= _NEAR * least) for by_choice in peaks]


def _leanness(policy: RecomputePolicy) -> float:
    return policy.activations + policy.blocks


def _chosen(
    modules: Sequence[LocalModule],
    objectives: Sequence[Objective],
    images: Tensor,
    labels: Tensor,
    memory: Memory,
    overlapping: bool,
) -> list[int]:
    """For each graph segment the index of its choice."""
    with private_api.fake_mode() as mode:
        originals = nn.ModuleList([*modules, *(o.auxiliary for o in objectives)])
        copies = private_api.without_hooks(private_api.fake_copy(originals, mode))
        for head in copies.modules():
            if isinstance(head, Head):
                head.loss = sum_of_outputs
        parts: list = list(copies)
        own = [replace(o, auxiliary=part) for o, part in zip(objectives, parts[len(modules) :], strict=True)]
        images, labels = (mode.from_tensor(t[:1]).expand(_BATCH, *t.shape[1:]).clone() for t in (images, labels))
        parts = parts[: len(modules)]
        probes = [_SegmentProbe(parts, own, images)] if overlapping else list(_probes(parts, own, images))
        peaks = _peaks({probe.signature: probe for probe in probes}, images, labels, CHOICES[memory])
    return choose([list(of) for probe in probes for of in zip(*peaks[probe.signature], strict=True)], memory)


def _peaks(
    probes: dict[Hashable, _SegmentProbe], images: Tensor, labels: Tensor, choices: Sequence[Choice]
) -> dict[Hashable, list[list[float]]]:
    """For each probe its peaks by choice, then by segment.

    The highest probe is counted first, under all choices. Its least peak is a floor that the step cannot go below, so
    any other probe is counted only up to its first choice at or below the floor.
    """
    peaks = {key: [probe.peaks(images, labels, choices[0])] for key, probe in probes.items()}
    highest = max(max(by_choice[0]) for by_choice in peaks.values())
    floor = 0.0
    for key, by_choice in sorted(peaks.items(), key=lambda item: -max(item[1][0])):
        is_low = max(by_choice[0]) <= _LOW * highest
        for choice in () if is_low else choices[1:]:
            if _least(by_choice) <= floor:
                break
            by_choice.append(probes[key].peaks(images, labels, choice))
        floor = max(floor, _least(by_choice))
    return peaks


def _least(by_choice: Sequence[Sequence[float]]) -> float:
    """The highest of the segments when each takes its own leanest choice."""
    return max(map(min, zip(*by_choice, strict=True)))


def sum_of_outputs(outputs: Tensor, labels: Tensor) -> Tensor:
    """A loss for counting bytes and operators: it takes any labels, and calls nothing of the user's."""
    return outputs.sum()


def _probes(modules: list[LocalModule], objectives: Sequence[Objective], images: Tensor) -> Iterator[_SegmentProbe]:
    """One for each objective; objectives do not overlap."""
    features = images
    for objective in objectives:
        own = modules[objective.first : objective.last + 1]
        yield _SegmentProbe(own, [replace(objective, first=0, last=len(own) - 1)], features)
        with torch.no_grad():
            for module in own:
                features = module(features)

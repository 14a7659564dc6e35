"""Which parts of a network compute again instead of keeping: decided from bytes, counted without computing."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Literal

import torch
from torch import Tensor, nn

from locallearn._chain.local_module import LocalModule
from locallearn._engine.segment import segment_spans
from locallearn._engine.step import Step
from locallearn._objectives.auxiliary import Head
from locallearn._objectives.objective import Objective
from locallearn._recompute.policy import STORE_ALL, RecomputePlan, RecomputePolicy
from locallearn._torch import private_api
from locallearn._torch.live_bytes import LiveBytes

Memory = Literal["fast", "lean"]

Choice = tuple[RecomputePolicy, RecomputePolicy]
"""Of stretches, and of auxiliary networks."""

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
"""From the fastest to the leanest."""

_WORTH_IT = {"fast": 1.12, "lean": 1.0}
"""How much more than the least peak that can be reached is too much, so that something is done about it."""

_NEAR = 1.01
"""How near to the least peak is near enough then."""

_LOW = 0.35
"""Stretches below this share of the highest peak when all is kept are never the highest: they keep all."""

_BATCH = 64


@dataclass(frozen=True)
class _SegmentProbe:
    """A stretch of the step that can be looked at by itself."""

    modules: list[LocalModule]
    objectives: list[Objective]
    features: Tensor

    @cached_property
    def signature(self) -> Hashable:
        """Equal for windows that take equal memory."""
        parts = [*self.modules, *(objective.auxiliary for objective in self.objectives)]
        weights = [(tuple(p.shape), p.dtype, p.requires_grad) for part in parts for p in part.parameters()]
        return str(parts), tuple(weights), tuple(self.features.shape), self.features.dtype

    def peaks(self, images: Tensor, labels: Tensor, choice: Choice) -> list[float]:
        """Peak bytes while each of its stretches is the last that ran; infinite where that choice is not possible."""
        spans = segment_spans(self.objectives)
        plan = RecomputePlan(segments=(choice[0],) * len(spans), objectives=(choice[1],) * len(self.objectives))
        parts = nn.ModuleList([*self.modules, *(objective.auxiliary for objective in self.objectives)])
        known = [*parts.parameters(), *parts.buffers(), self.features, images, labels]
        held = 0 if self.features is images else self.features.nbytes  # by the module before
        found: list[float] = []
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
                    on_segment=lambda: found.append(live.take_peak() + held),
                ).run()
        except Exception:  # such parts cannot be run twice; what no choice can do is told by the step itself
            return [inf] * len(spans)
        return found


def plan_recompute(
    modules: Sequence[LocalModule],
    objectives: Sequence[Objective],
    images: Tensor,
    labels: Tensor,
    memory: Memory,
) -> RecomputePlan:
    """The fastest thrift with which a step's peak is near the least that can be reached.

    `fast` lets normalisation and activation be computed again; `lean` modules and blocks of auxiliary networks too.
    What stays below that peak anyway keeps all.

    Args:
        modules: the local modules.
        objectives: the objectives over them.
        images: a batch, of which sizes and type alone count.
        labels: its labels, likewise.
        memory: "fast" or "lean".
    """
    spans = segment_spans(objectives)
    overlapping = sum(o.first <= span.start <= o.last for o in objectives for span in spans) > len(spans)
    chosen = [0] * len(spans)
    if memory == "lean" or not overlapping:  # with overlaps the count takes long, and `fast` has little to gain
        chosen = _chosen(_peaks(modules, objectives, images, labels, CHOICES[memory], overlapping), memory)
    number = {span[-1]: index for index, span in enumerate(spans)}
    done = [max(number[o.last] for o in objectives if o.first <= span.start <= o.last) for span in spans]
    return RecomputePlan(
        segments=tuple(
            max((CHOICES[memory][c][0] for c in chosen[index : last + 1]), key=_rank) for index, last in enumerate(done)
        ),
        objectives=tuple(CHOICES[memory][chosen[number[o.last]]][1] for o in objectives),
    )


def _chosen(peaks: Sequence[Sequence[float]], memory: Memory) -> list[int]:
    """For each stretch the first choice that is near the least peak of the step; peaks are by choice, then stretch."""
    of_stretches = list(zip(*peaks, strict=True))
    least = max(map(min, of_stretches))
    if least == inf or max(peaks[0]) <= _WORTH_IT[memory] * least:
        return [0] * len(of_stretches)
    return [next(c for c, peak in enumerate(found) if peak <= _NEAR * least) for found in of_stretches]


def _rank(policy: RecomputePolicy) -> float:
    return policy.activations + policy.blocks


def _peaks(
    modules: Sequence[LocalModule],
    objectives: Sequence[Objective],
    images: Tensor,
    labels: Tensor,
    choices: Sequence[Choice],
    overlapping: bool,
) -> list[list[float]]:
    """Peak bytes by choice, then stretch."""
    with private_api.fake_mode() as mode:
        originals = nn.ModuleList([*modules, *(o.auxiliary for o in objectives)])
        copied = private_api.without_hooks(private_api.fake_copy(originals, mode))
        for head in copied.modules():
            if isinstance(head, Head):
                head.loss = sum_of_outputs  # the user's own may count its calls, or take no labels without meaning
        parts: list = list(copied)
        own = [replace(o, auxiliary=part) for o, part in zip(objectives, parts[len(modules) :], strict=True)]
        images, labels = (mode.from_tensor(t[:1]).expand(_BATCH, *t.shape[1:]).clone() for t in (images, labels))
        parts = parts[: len(modules)]
        windows = [_SegmentProbe(parts, own, images)] if overlapping else list(_windows(parts, own, images))
        unlike = {window.signature: window for window in windows}
        kept = {key: window.peaks(images, labels, choices[0]) for key, window in unlike.items()}
        high = {key for key, peaks in kept.items() if max(peaks) > _LOW * max(map(max, kept.values()))}
        found = [kept]
        for choice in choices[1:]:
            new = {key: unlike[key].peaks(images, labels, choice) for key in high}
            found.append(kept | new)
    return [[peak for window in windows for peak in by_key[window.signature]] for by_key in found]


def sum_of_outputs(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs.sum()


def _windows(modules: list[LocalModule], objectives: Sequence[Objective], images: Tensor) -> Iterator[_SegmentProbe]:
    """One for each objective, whose modules are its own."""
    features = images
    for objective in objectives:
        own = modules[objective.first : objective.last + 1]
        yield _SegmentProbe(own, [replace(objective, first=0, last=len(own) - 1)], features)
        with torch.no_grad():
            for module in own:
                features = module(features)

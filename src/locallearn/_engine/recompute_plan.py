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
from locallearn._engine.segment import stretches
from locallearn._engine.step import run_step
from locallearn._objectives.auxiliary import Head
from locallearn._objectives.objective import Objective
from locallearn._recompute.policy import KEEP_ALL, Thrift, ThriftPlan
from locallearn._recompute.sliced import few_slices
from locallearn._torch import private_api
from locallearn._torch.live_bytes import LiveBytes

Memory = Literal["fast", "lean"]

Choice = tuple[Thrift, Thrift]
"""Of stretches, and of auxiliary networks."""

_REMAKE, _SLICED = Thrift(remake=True), Thrift(remake=True, sliced=True)
_HALF, _RERUN = replace(_SLICED, rerun=0.5), replace(_SLICED, rerun=1)
_CHOICES: dict[Memory, tuple[Choice, ...]] = {
    "fast": ((KEEP_ALL, KEEP_ALL), (_REMAKE, _REMAKE)),
    "lean": (
        (KEEP_ALL, KEEP_ALL),
        (_REMAKE, _REMAKE),
        (_SLICED, _SLICED),
        (_SLICED, _HALF),
        (_SLICED, _RERUN),
        (_RERUN, _SLICED),
        (_RERUN, _HALF),
        (_RERUN, _RERUN),
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
class _Window:
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
        spans = stretches(self.objectives)
        plan = ThriftPlan(stretches=(choice[0],) * len(spans), objectives=(choice[1],) * len(self.objectives))
        parts = nn.ModuleList([*self.modules, *(objective.auxiliary for objective in self.objectives)])
        known = [*parts.parameters(), *parts.buffers(), self.features, images, labels]
        held = 0 if self.features is images else self.features.nbytes  # by the module before
        found: list[float] = []
        torch.clear_autocast_cache()  # else weights that were cast before would not be counted
        try:
            with LiveBytes(known=known, parameters=parts.parameters()) as live:
                run_step(
                    self.modules,
                    self.objectives,
                    images,
                    labels,
                    features=self.features,
                    thrift=plan,
                    on_stretch=lambda: found.append(live.take_peak() + held),
                )
        except Exception:  # such parts cannot be run twice; what no choice can do is told by the step itself
            return [inf] * len(spans)
        return found


def plan_thrift(
    modules: Sequence[LocalModule],
    objectives: Sequence[Objective],
    images: Tensor,
    labels: Tensor,
    memory: Memory,
) -> ThriftPlan:
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
    spans = stretches(objectives)
    overlapping = sum(o.first <= span.start <= o.last for o in objectives for span in spans) > len(spans)
    chosen = [0] * len(spans)
    if memory == "lean" or not overlapping:  # with overlaps the count takes long, and `fast` has little to gain
        chosen = _chosen(_peaks(modules, objectives, images, labels, _CHOICES[memory], overlapping), memory)
    number = {span[-1]: index for index, span in enumerate(spans)}
    done = [max(number[o.last] for o in objectives if o.first <= span.start <= o.last) for span in spans]
    return ThriftPlan(
        stretches=tuple(
            max((_CHOICES[memory][c][0] for c in chosen[index : last + 1]), key=_rank)
            for index, last in enumerate(done)
        ),
        objectives=tuple(_CHOICES[memory][chosen[number[o.last]]][1] for o in objectives),
    )


def _chosen(peaks: Sequence[Sequence[float]], memory: Memory) -> list[int]:
    """For each stretch the first choice that is near the least peak of the step; peaks are by choice, then stretch."""
    of_stretches = list(zip(*peaks, strict=True))
    least = max(map(min, of_stretches))
    if least == inf or max(peaks[0]) <= _WORTH_IT[memory] * least:
        return [0] * len(of_stretches)
    return [next(c for c, peak in enumerate(found) if peak <= _NEAR * least) for found in of_stretches]


def _rank(thrift: Thrift) -> float:
    return thrift.remake + thrift.sliced + thrift.rerun


def _peaks(
    modules: Sequence[LocalModule],
    objectives: Sequence[Objective],
    images: Tensor,
    labels: Tensor,
    choices: Sequence[Choice],
    overlapping: bool,
) -> list[list[float]]:
    """Peak bytes by choice, then stretch."""
    with private_api.fake_mode() as mode, few_slices():
        originals = nn.ModuleList([*modules, *(o.auxiliary for o in objectives)])
        copied = private_api.without_hooks(private_api.fake_copy(originals, mode))
        for head in copied.modules():
            if isinstance(head, Head):
                head.loss = _any_loss  # the user's own may count its calls, or take no labels without meaning
        parts: list = list(copied)
        own = [replace(o, auxiliary=part) for o, part in zip(objectives, parts[len(modules) :], strict=True)]
        images, labels = (mode.from_tensor(t[:1]).expand(_BATCH, *t.shape[1:]).clone() for t in (images, labels))
        parts = parts[: len(modules)]
        windows = [_Window(parts, own, images)] if overlapping else list(_windows(parts, own, images))
        unlike = {window.signature: window for window in windows}
        kept = {key: window.peaks(images, labels, choices[0]) for key, window in unlike.items()}
        high = {key for key, peaks in kept.items() if max(peaks) > _LOW * max(map(max, kept.values()))}
        found = [kept]
        for choice in choices[1:]:
            new = {key: unlike[key].peaks(images, labels, choice) for key in high}
            found.append(kept | new)
    return [[peak for window in windows for peak in by_key[window.signature]] for by_key in found]


def _any_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs.sum()


def _windows(modules: list[LocalModule], objectives: Sequence[Objective], images: Tensor) -> Iterator[_Window]:
    """One for each objective, whose modules are its own."""
    features = images
    for objective in objectives:
        own = modules[objective.first : objective.last + 1]
        yield _Window(own, [replace(objective, first=0, last=len(own) - 1)], features)
        with torch.no_grad():
            for module in own:
                features = module(features)

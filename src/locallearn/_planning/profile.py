"""What each layer and each auxiliary network of a chain holds and does, from which that of any partition follows.

Equal parts are looked at once, without computing, so that a hundred layers take seconds and a partition none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.local_module import LocalModule
from locallearn._engine.recompute_plan import CHOICES, Memory, sum_of_outputs
from locallearn._engine.segment import GraphSegment
from locallearn._engine.step import local_loss
from locallearn._objectives.auxiliary import Auxiliary, Head
from locallearn._objectives.objective import Objective
from locallearn._planning.dynamic_program import summed
from locallearn._recompute.policy import RecomputePolicy
from locallearn._torch import private_api
from locallearn._torch.device import mixed
from locallearn._torch.live_bytes import LiveBytes
from locallearn._torch.op_counter import Work, seconds

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Part:
    """Bytes and seconds of a layer, or of an auxiliary network, for each image.

    Attributes:
        kept: bytes alive after its forward pass.
        forward: the most in its forward pass; of an auxiliary network, in all of it.
        backward: the most in its backward pass.
        seconds: predicted time of both passes.
    """

    kept: float
    forward: float
    backward: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """All parts of a chain under a rule.

    Attributes:
        layers: for each policy its parts, in order.
        heads: for each policy the auxiliary network behind each layer, None where the rule allows none.
        weights: bytes of trained parameters of each layer; of its auxiliary network; the classifier's is the last.
        head_weights: the same of auxiliary networks.
        inputs: bytes of what each layer takes, for each image.
        ends: layers with which modules may end.
    """

    layers: dict[RecomputePolicy, list[Part]]
    heads: dict[RecomputePolicy, list[Part | None]]
    weights: list[int]
    head_weights: list[int]
    inputs: list[float]
    ends: tuple[int, ...]

    def peak(self, first: int, last: int, memory: Memory) -> float:
        """Peak bytes for each image of a module of these layers and its auxiliary network."""
        return min(peak for peak, _ in self._choices(first, last, memory))

    def seconds(self, first: int, last: int, memory: Memory, limit: float = inf) -> float:
        """Predicted time for each image of a module that may have this peak; infinite where it cannot."""
        return min((time for peak, time in self._choices(first, last, memory) if peak <= limit), default=inf)

    def trained(self, ends: Sequence[int]) -> int:
        """Bytes of all trained parameters of a partition."""
        return sum(self.weights) + sum(self.head_weights[end] for end in ends)

    def _choices(self, first: int, last: int, memory: Memory) -> Iterator[tuple[float, float]]:
        for of_layers, of_heads in CHOICES[memory]:
            head = self.heads[of_heads][last]
            if head is None:
                yield inf, inf
                continue
            kept, most, up_to = self._sums[of_layers]
            before = kept(0, first - 1)
            held = kept(first, last)
            inside = max(most[first : last + 1]) - before
            time = up_to(first, last) + head.seconds
            yield (self.inputs[first] if first else 0) + max(inside, held + head.forward), time

    @cached_property
    def _sums(
        self,
    ) -> dict[RecomputePolicy, tuple[Callable[[int, int], float], list[float], Callable[[int, int], float]]]:
        """For each policy: sums of kept bytes; the most of each layer on top of all before; sums of seconds."""
        found = {}
        for policy, parts in self.layers.items():
            kept = summed([part.kept for part in parts])
            most = [kept(0, i - 1) + max(part.forward, part.backward) for i, part in enumerate(parts)]
            found[policy] = kept, most, summed([part.seconds for part in parts])
        return found


def profile(
    chain: TracedChain,
    objectives: Sequence[Objective | None],
    memory: Memory,
    *,
    ends: Sequence[int],
    autocast: torch.dtype | None = None,
) -> Profile:
    """Look at every layer of a chain and every auxiliary network.

    Args:
        chain: the chain.
        objectives: the auxiliary network behind each layer; the last is the classifier.
        memory: "fast" or "lean".
        ends: layers with which modules may end.
        autocast: dtype of mixed precision, or None.
    """
    policies = list(dict.fromkeys(policy for choice in CHOICES[memory] for policy in choice))
    with private_api.fake_mode() as mode:
        layers = private_api.fake_copy(nn.ModuleList(chain.layers), mode).train()
        look = _Look(chain, autocast, mode)
        inputs: list[Tensor] = [look.images]
        with torch.no_grad(), look.precision():
            for layer, in_place in zip(layers, chain.begins_in_place, strict=False):
                inputs.append(layer(inputs[-1].clone() if in_place else inputs[-1]))
        parts = {
            policy: [look.at_layer(i, layer, inputs[i], policy) for i, layer in enumerate(layers)]
            for policy in policies
        }
        heads: dict[RecomputePolicy, list[Part | None]] = {policy: [] for policy in policies}
        for objective, features in zip(objectives, inputs[1:], strict=True):
            for policy in policies:
                heads[policy].append(None if objective is None else look.at_head(objective, features, policy))
    return Profile(
        layers=parts,
        heads=heads,
        weights=[_trained(layer) for layer in chain.layers],
        head_weights=[0 if objective is None else _trained(objective.auxiliary) for objective in objectives],
        inputs=[features.numel() * features.element_size() / _BATCH for features in inputs],
        ends=tuple(ends),
    )


class _Look:
    """Looks at parts; equal ones once."""

    def __init__(self, chain: TracedChain, autocast: torch.dtype | None, mode: Any) -> None:
        reference = next(parameter for layer in chain.layers for parameter in layer.parameters())
        self._device, self._autocast, self._chain, self._mode = reference.device.type, autocast, chain, mode
        self.images = torch.zeros(_BATCH, *chain.image_shape, dtype=reference.dtype, device=reference.device)
        self.labels = torch.zeros(_BATCH, dtype=torch.long, device=reference.device)
        self._found: dict[Hashable, Part] = {}

    def precision(self) -> AbstractContextManager[object]:
        return mixed(self.images.device, self._autocast)

    def at_layer(self, index: int, layer: nn.Module, features: Tensor, policy: RecomputePolicy) -> Part:
        def measured() -> Part:
            module = LocalModule([layer], begins_in_place=self._chain.begins_in_place[index])
            known = [*layer.parameters(), *layer.buffers(), features]
            with self._counted(layer, known) as (live, work):
                segment = GraphSegment([module], range(1, 2), {0}, features.detach(), policy)
                kept, forward = live.now, live.take_peak()
                with torch.autocast(self._device, enabled=False):
                    segment.receive(0, torch.empty_like(segment.output))
                    segment.backward(0)
                backward = live.take_peak()
            return _part(kept, forward, backward, work)

        return self._once((policy, _signature(layer, features)), measured)

    def at_head(self, objective: Objective, features: Tensor, policy: RecomputePolicy) -> Part:
        def measured() -> Part:
            auxiliary = _without_loss(private_api.fake_copy(objective.auxiliary, self._mode).train())
            own = replace(objective, auxiliary=auxiliary)
            known = [*auxiliary.parameters(), *auxiliary.buffers(), features, self.images, self.labels]
            nothing = LocalModule([nn.Identity()], begins_in_place=False)
            with self._counted(auxiliary, known) as (live, work):
                segment = GraphSegment([nothing], range(1, 2), {0}, features.detach())
                local_loss(own, segment, self.images, self.labels, 1.0, policy)
            return _part(0, live.peak_activations, 0, work)

        return self._once((policy, _signature(objective.auxiliary, features)), measured)

    @contextmanager
    def _counted(self, part: nn.Module, known: list[Tensor]) -> Iterator[tuple[LiveBytes, Work]]:
        with LiveBytes(known=known, parameters=part.parameters()) as live, Work() as work, self.precision():
            yield live, work

    def _once(self, key: Hashable, measured: Callable[[], Part]) -> Part:
        if key not in self._found:
            self._found[key] = measured()
        return self._found[key]


def _part(kept: int, forward: int, backward: int, work: Work) -> Part:
    return Part(
        kept=kept / _BATCH, forward=forward / _BATCH, backward=backward / _BATCH, seconds=seconds(work.counts) / _BATCH
    )


def _without_loss(auxiliary: Auxiliary) -> Auxiliary:
    """With any loss: the user's own may take no labels without meaning."""
    for part in private_api.without_hooks(auxiliary).modules():
        if isinstance(part, Head):
            part.loss = sum_of_outputs
    return auxiliary


def _signature(part: nn.Module, features: Tensor) -> Hashable:
    """Equal for parts that hold and do the same."""
    weights = tuple((tuple(p.shape), p.dtype, p.requires_grad) for p in part.parameters())
    return str(part), weights, tuple(features.shape), features.dtype


def _trained(part: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in part.parameters() if p.requires_grad)

"""The bytes and the time of each layer and each auxiliary network, from which those of any partition follow.

Equal parts are counted once, without computing, so a hundred layers take seconds and a further partition no time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf

import torch
from torch import Tensor, nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.local_module import LocalModule
from locallearn._chain.partition import Partition
from locallearn._chain.structure import structure
from locallearn._engine.recompute_plan import CHOICES, Memory, choose, countable_copy, recomputed_part, sum_of_outputs
from locallearn._engine.segment import GraphSegment
from locallearn._engine.step import local_loss
from locallearn._objectives.auxiliary import Head
from locallearn._objectives.objective import Objective
from locallearn._objectives.sites import Sites
from locallearn._planning.dynamic_program import summed
from locallearn._recompute.policy import RecomputePolicy
from locallearn._torch import private_api
from locallearn._torch.device import mixed
from locallearn._torch.live_bytes import LiveBytes
from locallearn._torch.op_counter import Work
from locallearn._utils.errors import LocalLearnError
from locallearn.rules import Rule

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Part:
    """Bytes and seconds of a layer, or of an auxiliary network, per image.

    Attributes:
        saved: bytes alive after its forward pass.
        forward: peak bytes in its forward pass; of an auxiliary network, in both passes.
        backward: peak bytes in its backward pass.
        seconds: predicted time of both passes.
    """

    saved: float
    forward: float
    backward: float
    seconds: float


@dataclass(frozen=True)
class LayerProfile:
    """The layers of a chain, whatever the rule.

    Attributes:
        chain: the chain.
        memory: the profile has all policies of this setting.
        autocast: dtype of mixed precision, or None.
        parts: for each layer its bytes and seconds, by policy.
        features: the input of each layer and the output of the last, as fake tensors.
    """

    chain: TracedChain
    memory: Memory
    autocast: torch.dtype | None
    parts: list[dict[RecomputePolicy, Part]]
    features: list[Tensor]

    @cached_property
    def inputs(self) -> list[float]:
        """Bytes of each layer's input, per image."""
        return [features.nbytes / _BATCH for features in self.features]


@dataclass(frozen=True)
class Profile:
    """A chain under a rule.

    Attributes:
        layers: the layers.
        auxiliaries: for each layer the auxiliary network after it, by policy; None where the rule allows none.
        weights: bytes of trained parameters of each layer.
        auxiliary_weights: the same of the auxiliary networks; the classifier counts as the last one.
        ends: layers with which modules may end.
    """

    layers: LayerProfile
    auxiliaries: list[dict[RecomputePolicy, Part] | None]
    weights: list[int]
    auxiliary_weights: list[int]
    ends: tuple[int, ...]
    _choices: dict[tuple[int, int, Memory], list[tuple[float, float]]] = field(default_factory=dict)

    def peak(self, first: int, last: int, memory: Memory) -> float:
        """The least peak bytes per image of a module from layer `first` to layer `last`."""
        return min(peak for peak, _ in self.choices(first, last, memory))

    def seconds(self, first: int, last: int, memory: Memory, limit: float = inf) -> float:
        """The least time per image of such a module whose peak is at most `limit`; infinite where there is none."""
        return min((time for peak, time in self.choices(first, last, memory) if peak <= limit), default=inf)

    def step(self, partition: Partition, memory: Memory) -> tuple[float, float]:
        """Peak bytes and seconds of a step per image, with the choices that the engine would take."""
        spans = [partition.layers(module) for module in range(len(partition))]
        choices = [self.choices(span[0], span[-1], memory) for span in spans]
        chosen = choose([[peak for peak, _ in of_module] for of_module in choices], memory)
        peaks, times = zip(*(of_module[c] for of_module, c in zip(choices, chosen, strict=True)), strict=True)
        return max(peaks), sum(times)

    def trained(self, ends: Sequence[int]) -> int:
        """Bytes of all trained parameters of a partition."""
        return sum(self.weights) + sum(self.auxiliary_weights[end] for end in ends)

    def choices(self, first: int, last: int, memory: Memory) -> list[tuple[float, float]]:
        """Peak bytes and seconds of a module per image, under each of the `CHOICES`."""
        key = first, last, memory
        if key not in self._choices:
            self._choices[key] = list(self._count(first, last, memory))
        return self._choices[key]

    def _count(self, first: int, last: int, memory: Memory) -> Iterator[tuple[float, float]]:
        auxiliaries = self.auxiliaries[last]
        for of_layers, of_auxiliary in CHOICES[memory]:
            if auxiliaries is None:
                yield inf, inf
                continue
            auxiliary = auxiliaries[of_auxiliary]
            saved, highest, time = self._sums[of_layers]
            in_layers = max(highest[first : last + 1]) - saved(0, first - 1)
            in_auxiliary = saved(first, last) + auxiliary.forward
            input_bytes = self.layers.inputs[first] if first else 0
            yield input_bytes + max(in_layers, in_auxiliary), time(first, last) + auxiliary.seconds

    @cached_property
    def _sums(
        self,
    ) -> dict[RecomputePolicy, tuple[Callable[[int, int], float], list[float], Callable[[int, int], float]]]:
        """For each policy: saved bytes as sums; each layer's peak on top of all earlier ones; seconds as sums."""
        sums = {}
        for policy in self.layers.parts[0]:
            parts = [by_policy[policy] for by_policy in self.layers.parts]
            saved = summed([part.saved for part in parts])
            highest = [saved(0, i - 1) + max(part.forward, part.backward) for i, part in enumerate(parts)]
            sums[policy] = saved, highest, summed([part.seconds for part in parts])
        return sums


def profile_layers(chain: TracedChain, memory: Memory, *, autocast: torch.dtype | None = None) -> LayerProfile:
    """Count the bytes and the work of every layer of a chain.

    Args:
        chain: the chain.
        memory: "fast", "lean" or "least"; each has the policies of those before it too.
        autocast: dtype of mixed precision, or None.
    """
    reference = next(parameter for layer in chain.layers for parameter in layer.parameters())
    with private_api.fake_mode() as mode:
        layers = private_api.fake_copy(nn.ModuleList(chain.layers), mode).train()
        images = torch.zeros(_BATCH, *chain.image_shape, dtype=reference.dtype, device=reference.device)
        features = [images]
        with torch.no_grad(), mixed(images.device, autocast):
            for layer, in_place in zip(layers, chain.begins_in_place, strict=False):
                features.append(layer(features[-1].clone() if in_place else features[-1]))
        policies = dict.fromkeys(policy for policy, _ in CHOICES[memory])
        parts = []
        counted: dict[Hashable, dict[RecomputePolicy, Part]] = {}
        for layer, in_place, inputs in zip(layers, chain.begins_in_place, features, strict=False):
            key = structure(layer), in_place, inputs.shape, inputs.dtype
            if key not in counted:
                module = LocalModule([layer], begins_in_place=in_place)
                counted[key] = {policy: _count_layer(module, inputs, policy, autocast) for policy in policies}
            parts.append(counted[key])
    return LayerProfile(chain, memory, autocast, parts, features)


def profile(layers: LayerProfile, objectives: Sequence[Objective | None]) -> Profile:
    """Count the bytes and the work of every auxiliary network.

    Args:
        layers: the layers that they follow.
        objectives: the objective that ends with each layer, None where no module may end.
    """
    auxiliaries: list[dict[RecomputePolicy, Part] | None] = []
    counted: dict[Hashable, dict[RecomputePolicy, Part]] = {}
    with private_api.fake_mode() as mode:
        images, *outputs = (
            torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device) for t in layers.features
        )
        for objective, features in zip(objectives, outputs, strict=True):
            if objective is None:
                auxiliaries.append(None)
                continue
            key = structure(objective.auxiliary), features.shape, features.dtype
            if key not in counted:
                copy = replace(objective, auxiliary=countable_copy(objective.auxiliary, mode).train())
                counted[key] = _count_auxiliary(copy, features, images, layers)
            auxiliaries.append(counted[key])
    return Profile(
        layers=layers,
        auxiliaries=auxiliaries,
        weights=[_trained(layer) for layer in layers.chain.layers],
        auxiliary_weights=[0 if objective is None else _trained(objective.auxiliary) for objective in objectives],
        ends=tuple(layer for layer, objective in enumerate(objectives) if objective is not None),
    )


def objectives_by_layer(rule: Rule, sites: Sites, objective_at: Callable[[int], Objective]) -> list[Objective | None]:
    """For each layer the objective that ends there if every module that may end there does; None where none may.

    Where auxiliary networks depend on the partition, as AugLocal's do on the number of modules, the profile is close
    rather than exact.

    Args:
        rule: the rule.
        sites: of the partition into as many modules as there may be.
        objective_at: makes the objective of a module, by its index in this partition.
    """
    objectives: list[Objective | None] = [None] * len(sites.chain)
    has_auxiliaries = type(rule).auxiliary is not Rule.auxiliary
    *earlier, last = sites.partition.ends
    for module, end in enumerate(earlier):
        if has_auxiliaries:
            with suppress(LocalLearnError):  # the rule allows no auxiliary network here
                objectives[end] = objective_at(module)
        else:
            head = Head(_ChannelMean(), sum_of_outputs)
            objectives[end] = Objective(first=module, last=module, auxiliary=head)
    objectives[last] = objective_at(len(earlier))
    return objectives


class _ChannelMean(nn.Module):
    """The network of a placeholder head with negligible cost."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.flatten(1).mean(1, keepdim=True)


def _count_layer(module: LocalModule, features: Tensor, policy: RecomputePolicy, autocast: torch.dtype | None) -> Part:
    module.zero_grad()
    with _counting(module, [features], autocast) as (live, work):
        segment = GraphSegment([module], range(1, 2), {0}, features.detach(), policy)
        saved, forward = live.now, live.take_peak()
        with torch.autocast(features.device.type, enabled=False):
            segment.receive(0, torch.empty_like(segment.output))
            segment.backward(0)
        return _part(saved, forward, live.take_peak(), work)


def _count_auxiliary(
    objective: Objective, features: Tensor, images: Tensor, layers: LayerProfile
) -> dict[RecomputePolicy, Part]:
    labels = torch.zeros(_BATCH, dtype=torch.long, device=images.device)
    identity = LocalModule([nn.Identity()], begins_in_place=False)
    distinct: dict[Hashable, Part] = {}
    parts = {}
    for _, policy in CHOICES[layers.memory]:
        recomputed = recomputed_part(policy, objective.auxiliary)
        if recomputed not in distinct:
            objective.auxiliary.zero_grad()
            with _counting(objective.auxiliary, [features, images, labels], layers.autocast) as (live, work):
                segment = GraphSegment([identity], range(1, 2), {0}, features.detach())
                local_loss(objective, segment, images, labels, 1.0, policy)
                distinct[recomputed] = _part(0, live.peak_activations, 0, work)
        parts[policy] = distinct[recomputed]
    return parts


@contextmanager
def _counting(part: nn.Module, inputs: list[Tensor], autocast: torch.dtype | None) -> Iterator[tuple[LiveBytes, Work]]:
    known = [*part.parameters(), *part.buffers(), *inputs]
    precision = mixed(inputs[0].device, autocast)
    with LiveBytes(known=known, parameters=part.parameters()) as live, Work() as work, precision:
        yield live, work


def _part(saved: int, forward: int, backward: int, work: Work) -> Part:
    return Part(
        saved=saved / _BATCH,
        forward=forward / _BATCH,
        backward=backward / _BATCH,
        seconds=work.seconds / _BATCH,
    )


def _trained(part: nn.Module) -> int:
    return sum(p.nbytes for p in part.parameters() if p.requires_grad)

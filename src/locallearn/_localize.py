"""`localize`: a backbone and a rule become a network that trains locally."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from math import inf, isfinite
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.discovery import chain_of, refuse_shared_parameters, trace
from locallearn._chain.layout import Shape
from locallearn._chain.local_module import LocalModule
from locallearn._chain.partition import Partition, partition
from locallearn._chain.refusals import refuse_other_models
from locallearn._engine.local_net import LocalNet
from locallearn._engine.recompute_plan import Memory
from locallearn._nn.checkpointed import Checkpointed
from locallearn._objectives.auxiliary import Head, Loss
from locallearn._objectives.checks import writes_on_its_features
from locallearn._objectives.objective import Level, Objective, Site, Span
from locallearn._planning.budget import fit_budget
from locallearn._planning.by_cost import BalancedSpec, balanced, least_modules, parse_cost_spec, profile_chain
from locallearn._planning.out_of_memory import explain_out_of_memory
from locallearn._planning.profile import Profile
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning, refuse_unknown
from locallearn.rules import Rule


def localize(
    model: nn.Module,
    rule: Rule,
    *,
    modules: str | int | Sequence[str] = "all",
    input_shape: Sequence[int],
    layers: str | Sequence[str] | None = None,
    loss: Loss = F.cross_entropy,
    seed: int = 0,
    image_mean: Sequence[float] | None = None,
    image_std: Sequence[float] | None = None,
    memory: Memory = "fast",
    overlap: int = 0,
) -> LocalNet:
    r"""Turn a backbone into a network that trains by local objectives.

    The backbone's weights, buffers and the global random state stay as they are; it is trained in place.

    Args:
        model: any module through which a single tensor passes, from layer to layer: torchvision's, timm's, your own. A
            method `chain()`, as those of `locallearn.models` have, says itself what the layers are; of an
            `nn.Sequential` they are its children with weights; else they are found by following the forward code.
        rule: the training rule.
        modules: which layers make which local module: `"all"` (each its own), a number K, names or regular expressions
            of the modules' last layers, or a published split such as `"infopro-16"` or `"hpff-8"`. `"parameters:K"`,
            `"macs:K"` and `"peak:K"` are the K modules of which the largest is smallest: in parameters, in
            multiply-accumulates, in predicted peak memory with this rule's auxiliary networks. `"memory:1GiB@1024"` is
            the fastest partition whose step with 1024 images fits in 1 GiB by `cost.peak_memory`: all parameters,
            gradients, EMA copies, the batch and Nesterov SGD's state counted.
        input_shape: channels, height, width of one image.
        layers: what the layers are, for any model: a name, a list of names, or regular expressions that match whole
            names, of modules that each end a layer, such as `["conv1", r"layer\d\.\d+"]`. A layer begins where the one
            before ends; what needs no weights (and normalisation behind a bare convolution) belongs to the one before.
        loss: from logits and targets to a scalar; auxiliary networks that classify use it too.
        seed: of the auxiliary networks' first weights.
        image_mean: what images have had subtracted in each channel, of pixels from 0 to 1, for rules that reconstruct
            them; by default 0.5, near the mean of most photographs.
        image_std: what they were divided by then; by default 0.25.
        memory: `"fast"`, or `"lean"` to compute again in the backward pass whatever lowers a step's peak memory: about
            two thirds of the activations of `"fast"` or less, in 1.1 to 1.4 times its time. Gradients are equal up to
            rounding.
        overlap: how many modules may still go backward while the next one runs forward, on streams of their own, on a
            CUDA GPU; each takes the memory of one module more. Elsewhere, and for rules with cascades, all runs in
            order. The results are the same.

    Raises:
        LocalLearnError: the model is no chain, the modules do not fit it, a parameter is shared between two modules,
            the rule cannot be applied, or no partition fits in the memory that `modules` says.
    """
    refuse_other_models(model)
    if not isinstance(rule, Rule):
        raise LocalLearnError(f"rule={rule!r} is no training rule: give an instance, as in locallearn.DGL().")
    refuse_unknown("memory", memory, get_args(Memory))
    if overlap < 0:
        raise LocalLearnError(f"overlap={overlap} must not be negative: 0 runs all in order.")
    task_loss = _Unregistered(loss) if isinstance(loss, nn.Module) else loss
    image_shape = _shape(input_shape)
    chain = trace(chain_of(model, image_shape, layers), image_shape)
    normalisation = _normalisation(image_mean, image_std, chain.image_shape[0])

    def build(groups: Partition) -> LocalNet:
        net = _built(model, chain, rule, _Sites(chain, groups, task_loss, *normalisation), memory, seed)
        net.overlap = overlap
        return net

    with _told_once():
        if (wanted := parse_cost_spec(modules)) is None:
            return build(rule.partition(partition(modules, chain.names)))
        every = rule.partition(partition("all", chain.names))
        sites = _Sites(chain, every, task_loss, *normalisation)
        look = partial(_look_at, rule, sites, memory, seed)
        if isinstance(wanted, BalancedSpec):
            return build(rule.partition(balanced(wanted, chain, every.ends, memory, look)))
        least = least_modules(rule, len(every))
        return fit_budget(wanted, look(), memory, least, build)


def _built(model: nn.Module, chain: TracedChain, rule: Rule, sites: _Sites, memory: Memory, seed: int) -> LocalNet:
    groups = sites.partition
    spans = _in_order(rule, rule.spans(len(groups)), len(groups))
    if len(spans) > 1:
        parts = [[chain.layers[layer] for layer in groups.layers(module)] for module in range(len(groups))]
        parts[-1].append(chain.classifier)
        refuse_shared_parameters(model, parts)
    local_modules = [_local_module(chain, groups, index, spans) for index in range(len(groups))]
    with _random_numbers_of_its_own(seed):
        objectives = [_objective(rule, span, sites) for span in spans]
    return LocalNet(
        model,
        chain,
        groups,
        local_modules,
        objectives,
        sites.loss,
        memory,
        explain_out_of_memory=explain_out_of_memory,
    )


def profile_of(chain: TracedChain, rule: Rule, memory: Memory, *, autocast: torch.dtype | None = None) -> Profile:
    """The profile of a chain under a rule, each layer a module, for a planner."""
    every = rule.partition(partition("all", chain.names))
    normalisation = _normalisation(None, None, chain.image_shape[0])
    return _look_at(rule, _Sites(chain, every, F.cross_entropy, *normalisation), memory, 0, autocast)


def _look_at(rule: Rule, sites: _Sites, memory: Memory, seed: int, autocast: torch.dtype | None = None) -> Profile:
    def objective_at(module: int) -> Objective:
        return _objective(rule, Span(first=module, last=module), sites, checked=False)

    with _random_numbers_of_its_own(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", LocalLearnWarning)  # told when the network is built
        return profile_chain(sites.chain, rule, sites.partition.ends, objective_at, memory, autocast)


def _in_order(rule: Rule, spans: list[Span], modules: int) -> list[Span]:
    """Spans in order of `last`, narrow ones first; each module must be in one, and the last one must end one."""
    found = ", ".join(f"({span.first}, {span.last})" for span in spans) or "none"
    told = f"{type(rule).__name__} gives spans {found} over {modules} modules"
    if any(not 0 <= span.first <= span.last < modules for span in spans):
        raise LocalLearnError(f"{told}: first and last must be modules, from 0 to {modules - 1}, in this order.")
    covered = {module for span in spans for module in range(span.first, span.last + 1)}
    if missing := sorted(set(range(modules)) - covered):
        raise LocalLearnError(f"{told}: no objective trains module {missing[0]}.")
    if all(span.last < modules - 1 for span in spans):
        raise LocalLearnError(f"{told}: none ends with the last module, so nothing trains the classifier.")
    return sorted(spans, key=lambda span: (span.last, -span.first))


def _shape(shape: Sequence[int]) -> Shape:
    if len(shape) != 3 or min(shape) < 1:
        raise LocalLearnError(f"input_shape={tuple(shape)}: give channels, height and width of one image.")
    channels, height, width = shape
    return channels, height, width


@dataclass(frozen=True)
class _Unregistered:
    """A loss that is a module. It is called, and not registered: the state dict would hold it once for each head."""

    loss: Loss

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.loss(logits, targets)


def _local_module(chain: TracedChain, groups: Partition, index: int, spans: list[Span]) -> LocalModule:
    recompute = any(span.recompute for span in spans if span.first <= index <= span.last)
    layers = [
        Checkpointed(chain.layers[i], copy_input=chain.begins_in_place[i]) if recompute else chain.layers[i]
        for i in groups.layers(index)
    ]
    begins_in_place = chain.begins_in_place[groups.layers(index)[0]] and not recompute
    return LocalModule(layers, begins_in_place=begins_in_place)


@dataclass(frozen=True)
class _Sites:
    """What all sites share."""

    chain: TracedChain
    partition: Partition
    loss: Loss
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]

    @cached_property
    def classifier(self) -> Head:
        """The backbone's own, which all objectives that end with the last module share."""
        return Head(self.chain.classifier, self.loss)

    def reference(self, layer: int) -> Tensor:
        """A parameter near a layer, whose device and type its auxiliary network takes."""
        near = (*reversed(self.chain.layers[: layer + 1]), *self.chain.layers[layer + 1 :], self.chain.classifier)
        return next(parameter for part in near for parameter in part.parameters())

    def site(self, span: Span) -> Site:
        return Site(
            chain=self.chain,
            layer=self.partition.ends[span.last],
            module=span.last,
            modules=len(self.partition),
            level=Level.INDEPENDENT if span.first == span.last else Level.CASCADE,
            loss=self.loss,
            published_modules=self.partition.published or len(self.partition),
            schedule_index=span.last,
            image_mean=self.image_mean,
            image_std=self.image_std,
        )


def _objective(rule: Rule, span: Span, sites: _Sites, *, checked: bool = True) -> Objective:
    if span.last == len(sites.partition) - 1:
        return Objective(
            first=span.first,
            last=span.last,
            weight=span.weight,
            auxiliary=sites.classifier,
            copy_features=sites.chain.begins_in_place[-1],
        )
    site = sites.site(span)
    reference = sites.reference(site.layer)
    auxiliary = rule.auxiliary(site).to(device=reference.device, dtype=reference.dtype)
    return Objective(
        first=span.first,
        last=span.last,
        weight=span.weight,
        auxiliary=auxiliary,
        layout=sites.chain.layouts[site.layer],
        copy_features=checked and writes_on_its_features(auxiliary, site, reference),
    )


def _normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    given = [0.5] * channels if mean is None else mean, [0.25] * channels if std is None else std
    found = tuple(float(value) for value in given[0]), tuple(float(value) for value in given[1])
    for name, values in zip(("image_mean", "image_std"), found, strict=True):
        if len(values) != channels:
            raise LocalLearnError(f"{name} has {len(values)} values, but images have {channels} channels.")
    if not all(0 < value < inf for value in found[1]) or not all(map(isfinite, found[0])):
        raise LocalLearnError("image_mean must be numbers, and image_std numbers larger than 0.")
    return found


@contextmanager
def _told_once() -> Iterator[None]:
    """What rules warn of at many sites is told once, as of the line that called `localize`."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", LocalLearnWarning)
        yield
    for category, sentence in dict.fromkeys((warning.category, str(warning.message)) for warning in told):
        warnings.warn(sentence, category, stacklevel=4)


@contextmanager
def _random_numbers_of_its_own(seed: int) -> Iterator[None]:
    """Networks made inside draw from `seed`, on the CPU; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield

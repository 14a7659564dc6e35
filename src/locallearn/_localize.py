"""`localize`: a backbone and a rule become a network that trains locally."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf, isfinite
from typing import get_args

import torch
import torch.nn.functional as F
from torch import nn

from locallearn._chain.chain import TracedChain
from locallearn._chain.discovery import chain_of, layers_offered, refuse_shared_parameters
from locallearn._chain.layout import Shape
from locallearn._chain.local_module import LocalModule
from locallearn._chain.partition import Partition, partition
from locallearn._chain.refusals import refuse_other_models
from locallearn._chain.trace import trace
from locallearn._engine.local_net import LocalNet
from locallearn._engine.recompute_plan import Memory
from locallearn._nn.checkpointed import Checkpointed
from locallearn._objectives.auxiliary import Loss
from locallearn._objectives.objective import Objective, Span
from locallearn._objectives.sites import Sites
from locallearn._objectives.trial import copy_written_features
from locallearn._planning.by_cost import BalancedSpec, balanced, fit_budget, parse_cost_spec
from locallearn._planning.out_of_memory import explain_out_of_memory
from locallearn._planning.profile import LayerProfile, Profile, objectives_by_layer, profile, profile_layers
from locallearn._utils.errors import LocalLearnError, LocalLearnWarning, refuse_unknown
from locallearn._utils.quantities import counted
from locallearn.rules import Rule
from locallearn.rules.checked import checked_auxiliary, checked_partition, checked_spans, refuse_shared_networks


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
        model: any network in which a single tensor passes from layer to layer: torchvision's, timm's, your own. Its
            layers come from its `chain()` method, if it has one, as those of `locallearn.models`; for an
            `nn.Sequential` they are its children with weights; otherwise they are traced from the forward code.
        rule: the training rule.
        modules: how layers are grouped into local modules: `"all"` (each layer a module), a number K, names or regular
            expressions of the modules' last layers, or a published split such as `"infopro-16"` or `"hpff-8"`.
            `"parameters:K"`, `"macs:K"` and `"peak:K"` make the largest of K modules as small as possible: in
            parameters, multiply-accumulates, or predicted peak memory with this rule's auxiliary networks.
            `"memory:1GiB@1024"` is the fastest partition whose step with 1024 images fits in 1 GiB. `cost.peak_memory`
            counts parameters, gradients, EMA copies, the batch and the state of Nesterov SGD.
        input_shape: channels, height, width of one image.
        layers: modules that each end a layer, for any model: names, or regular expressions that match whole names, such
            as `["conv1", r"layer\d\.\d+"]`. Parts without weights, and normalisation after a bare convolution, belong
            to the layer before.
        loss: from logits and targets to a scalar; auxiliary networks that classify use it too.
        seed: for the first weights of auxiliary networks.
        image_mean: mean of each channel, for pixels from 0 to 1, that was subtracted from the images. Rules that
            reconstruct images use it. The default, 0.5, is near the mean of most photographs.
        image_std: standard deviation by which the images were then divided; by default 0.25.
        memory: `"fast"`; `"lean"` recomputes activations, modules and blocks in the backward pass wherever that lowers
            the step's peak of activations: to between 0.4 of that of `"fast"` (BP) and all of it (DGL), in up to 1.25
            times its time. `"least"` recomputes convolutions and outputs of modules too, where that lowers this peak by
            another tenth or more: to 0.67 to 0.9 of that of `"lean"`, at 1.1 to 1.4 times its multiply-accumulates.
            Losses and gradients are those of `"fast"`, bit for bit.
        overlap: on a CUDA GPU, how many modules may still run backward while the next one runs forward, each on its own
            stream; each takes the memory of one module more. On other devices, and for rules with cascades, modules
            run in order. The results are the same. Not with `memory="least"`.

    Raises:
        LocalLearnError: the model is no chain, `modules` does not fit it, two modules share a parameter, the rule
            cannot be applied, or no partition fits in the memory that `modules` asks for.
    """
    if isinstance(model, LocalNet):
        raise LocalLearnError("the network is localized already: give its backbone, net.model.")
    refuse_other_models(model)
    if not callable(loss):
        raise LocalLearnError(f"loss={loss!r} is no function: give one, as torch.nn.functional.cross_entropy.")
    if not isinstance(rule, Rule):
        raise LocalLearnError(f"rule={rule!r} is no training rule: give an instance, as in locallearn.DGL().")
    refuse_unknown("memory", memory, get_args(Memory))
    if overlap and memory == "least":
        raise LocalLearnError("memory='least' frees a module's output, which overlap still reads: use memory='lean'.")
    if overlap < 0:
        raise LocalLearnError(f"overlap={overlap} must not be negative: 0 runs modules in order.")
    task_loss = _unregistered(loss)
    image_shape = _shape(input_shape)
    chain = trace(chain_of(model, image_shape, layers), image_shape)
    normalisation = _normalisation(image_mean, image_std, chain.image_shape[0])

    def build(groups: Partition) -> LocalNet:
        net = _built(model, chain, rule, Sites(chain, groups, task_loss, *normalisation), memory, seed)
        net.overlap = overlap
        return net

    with _warnings_once(), layers_offered(model, chain):
        if (spec := parse_cost_spec(modules)) is None:
            return build(checked_partition(rule, partition(modules, chain.names, chain.repeating)))
        every = checked_partition(rule, partition("all", chain.names))
        sites = Sites(chain, every, task_loss, *normalisation)

        def profile_of_chain() -> Profile:
            return _profile(profile_layers(chain, memory), rule, sites, seed)

        if isinstance(spec, BalancedSpec):
            return build(checked_partition(rule, balanced(spec, chain, every.ends, memory, profile_of_chain)))
        return fit_budget(spec, rule, profile_of_chain(), memory, build)


def _unregistered(loss: Loss) -> Loss:
    """A loss that each head would register otherwise; the network does it, so that buffers follow `net.to`."""
    if not isinstance(loss, nn.Module):
        return loss
    if parameters := [name for name, _ in loss.named_parameters()]:
        raise LocalLearnError(
            f"loss: {type(loss).__name__} has a parameter, {parameters[0]!r}, which nothing would train: put it into"
            " the network's last layer, or into the auxiliary networks of a rule of your own."
        )
    return partial(loss)


def _built(model: nn.Module, chain: TracedChain, rule: Rule, sites: Sites, memory: Memory, seed: int) -> LocalNet:
    groups = sites.partition
    spans = checked_spans(rule, len(groups))
    if len(spans) > 1:
        parts = [[chain.layers[layer] for layer in groups.layers(module)] for module in range(len(groups))]
        parts[-1].append(chain.classifier)
        refuse_shared_parameters(model, parts)
    local_modules = [_local_module(chain, groups, index, spans) for index in range(len(groups))]
    with _own_random_state(seed):
        objectives = [_objective(rule, span, sites) for span in spans]
    before_last = [objective for objective in objectives if objective.last < len(groups) - 1]
    refuse_shared_networks(model, before_last, [chain.names[end] for end in groups.ends])
    objectives = copy_written_features(objectives, sites)
    return LocalNet(model, sites, local_modules, objectives, memory, explain_out_of_memory=explain_out_of_memory)


def net_of(model: nn.Module, chain: TracedChain, rule: Rule, groups: Partition, memory: Memory) -> LocalNet:
    """What `localize` returns for a chain that is traced already, for a planner; other settings have their defaults."""
    with _warnings_once(), layers_offered(model, chain):
        return _built(model, chain, rule, _default_sites(chain, checked_partition(rule, groups)), memory, 0)


def profile_of(layers: LayerProfile, rule: Rule) -> Profile:
    """The profile of a chain under a rule, with each layer a module, for a planner."""
    every = checked_partition(rule, partition("all", layers.chain.names))
    return _profile(layers, rule, _default_sites(layers.chain, every), 0)


def _default_sites(chain: TracedChain, groups: Partition) -> Sites:
    return Sites(chain, groups, F.cross_entropy, *_normalisation(None, None, chain.image_shape[0]))


def _profile(layers: LayerProfile, rule: Rule, sites: Sites, seed: int) -> Profile:
    def objective_at(module: int) -> Objective:
        return _objective(rule, Span(first=module, last=module), sites)

    with _own_random_state(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", LocalLearnWarning)  # issued when the network is built
        objectives = objectives_by_layer(rule, sites, objective_at)
    try:
        return profile(layers, objectives)
    except (RuntimeError, ValueError, TypeError, IndexError):
        copy_written_features([objective for objective in objectives if objective is not None], sites)  # says why
        raise


def _shape(shape: Sequence[int]) -> Shape:
    if len(shape) != 3 or min(shape) < 1:
        raise LocalLearnError(f"input_shape={tuple(shape)}: give channels, height and width of one image.")
    channels, height, width = shape
    return channels, height, width


def _local_module(chain: TracedChain, groups: Partition, index: int, spans: list[Span]) -> LocalModule:
    recompute = any(span.recompute for span in spans if span.first <= index <= span.last)
    layers = [
        Checkpointed(chain.layers[i], copy_input=chain.begins_in_place[i]) if recompute else chain.layers[i]
        for i in groups.layers(index)
    ]
    begins_in_place = chain.begins_in_place[groups.layers(index)[0]] and not recompute
    return LocalModule(layers, begins_in_place=begins_in_place)


def _objective(rule: Rule, span: Span, sites: Sites) -> Objective:
    of_span = partial(Objective, first=span.first, last=span.last, weight=span.weight)
    if span.last == len(sites.partition) - 1:
        return of_span(auxiliary=sites.classifier, copy_features=sites.chain.begins_in_place[-1])
    site = sites.site(span.first, span.last)
    reference = sites.reference(site.layer)
    if (given := sites.chain.types[site.layer]) != reference.dtype:
        raise LocalLearnError(
            f"layer {sites.chain.names[site.layer]!r} passes on {given}, but an auxiliary network after it has"
            f" {reference.dtype}, as the parameters near by: convert in the next layer, or use BP or Checkpoint."
        )
    auxiliary = checked_auxiliary(rule, site).to(device=reference.device)
    if reference.dtype != torch.get_default_dtype():  # else copies of layers keep their types
        auxiliary = auxiliary.to(dtype=reference.dtype)
    return of_span(auxiliary=auxiliary, layout=sites.chain.layouts[site.layer])


def _normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    means = tuple(map(float, [0.5] * channels if mean is None else mean))
    stds = tuple(map(float, [0.25] * channels if std is None else std))
    for name, values in (("image_mean", means), ("image_std", stds)):
        if len(values) != channels:
            raise LocalLearnError(
                f"{name} has {counted(len(values), 'value')}, but images have {counted(channels, 'channel')}."
            )
    if not all(0 < value < inf for value in stds) or not all(map(isfinite, means)):
        raise LocalLearnError("image_mean must be numbers, and image_std numbers larger than 0.")
    return means, stds


@contextmanager
def _warnings_once() -> Iterator[None]:
    """Issue equal warnings of a rule's sites once, for the line that called `localize`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LocalLearnWarning)
        yield
    for category, sentence in dict.fromkeys((warning.category, str(warning.message)) for warning in caught):
        warnings.warn(sentence, category, stacklevel=4)


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Networks made in this context draw from `seed`, on the CPU; the global random state does not change."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield

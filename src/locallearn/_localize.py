"""`localize`: a backbone and a rule become a network that trains locally."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from locallearn._chain import Shape, TracedChain, chain_of, refuse_shared_parameters, trace
from locallearn._checks import writes_on_its_features
from locallearn._engine import LocalModule
from locallearn._errors import LocalLearnError
from locallearn._local_net import LocalNet
from locallearn._objectives import Head, Level, Loss, Objective, Site, Span
from locallearn._partition import Partition, partition
from locallearn._recompute import Recomputed
from locallearn.rules import Rule


def localize(
    model: nn.Module,
    rule: Rule,
    *,
    modules: str | int | Sequence[str] = "all",
    input_shape: Sequence[int],
    loss: Loss = F.cross_entropy,
    seed: int = 0,
) -> LocalNet:
    """Turn a backbone into a network that trains by local objectives.

    The backbone's weights, buffers and the global random state stay as they are; it is trained in place.

    Args:
        model: an `nn.Sequential`, or a module with a method `chain()`, as those of `locallearn.models` have.
        rule: the training rule.
        modules: which layers make which local module: `"all"` (each its own), a number K, names or regular expressions
            of the modules' last layers, or a published split such as `"infopro-16"` or `"hpff-8"`.
        input_shape: channels, height, width of one image.
        loss: from logits and targets to a scalar; auxiliary networks that classify use it too.
        seed: of the auxiliary networks' first weights.

    Raises:
        LocalLearnError: the model is no chain, the modules do not fit it, a parameter is shared between two modules,
            or the rule cannot be applied.
    """
    if not isinstance(rule, Rule):
        raise LocalLearnError(f"rule={rule!r} is no training rule: give an instance, as in locallearn.DGL().")
    task_loss = _unregistered(loss)
    chain = trace(chain_of(model), _shape(input_shape))
    groups = rule.partition(partition(modules, chain.names))
    spans = rule.spans(len(groups))
    _refuse_gaps(rule, spans, len(groups))
    if len(spans) > 1:
        parts = [[chain.layers[layer] for layer in groups.layers(module)] for module in range(len(groups))]
        parts[-1].append(chain.classifier)
        refuse_shared_parameters(model, parts)
    local_modules = [_local_module(chain, groups, index, spans) for index in range(len(groups))]
    with _random_numbers_of_its_own(seed):
        objectives = [_objective(rule, span, chain, groups, task_loss) for span in spans]
    return LocalNet(model, chain, groups, local_modules, objectives, task_loss)


def _refuse_gaps(rule: Rule, spans: list[Span], modules: int) -> None:
    """Objectives follow each other without gap or overlap, from the first module to the last."""
    begins = [0, *(span.last + 1 for span in spans)]
    if [span.first for span in spans] != begins[:-1] or begins[-1] != modules or any(s.last < s.first for s in spans):
        found = ", ".join(f"({span.first}, {span.last})" for span in spans)
        raise LocalLearnError(
            f"{type(rule).__name__} gives spans {found or 'none'} over {modules} modules: each must begin where the one"
            " before it ends, from the first module to the last."
        )


def _shape(shape: Sequence[int]) -> Shape:
    if len(shape) != 3 or min(shape) < 1:
        raise LocalLearnError(f"input_shape={tuple(shape)}: give channels, height and width of one image.")
    channels, height, width = shape
    return channels, height, width


def _unregistered(loss: Loss) -> Loss:
    """A loss that is a module would stand in the state dict once for each head; a function does not."""
    return (lambda logits, targets: loss(logits, targets)) if isinstance(loss, nn.Module) else loss


def _local_module(chain: TracedChain, groups: Partition, index: int, spans: list[Span]) -> LocalModule:
    recompute = any(span.recompute for span in spans if span.first <= index <= span.last)
    layers = [
        Recomputed(chain.layers[i], copy_input=chain.begins_in_place[i]) if recompute else chain.layers[i]
        for i in groups.layers(index)
    ]
    begins_in_place = chain.begins_in_place[groups.layers(index)[0]] and not recompute
    return LocalModule(layers, begins_in_place=begins_in_place)


def _objective(rule: Rule, span: Span, chain: TracedChain, groups: Partition, loss: Loss) -> Objective:
    if span.last == len(groups) - 1:
        classifier = Head(chain.classifier, loss)
        return Objective(first=span.first, last=span.last, weight=span.weight, auxiliary=classifier)
    layer = groups.ends[span.last]
    level = Level.INDEPENDENT if span.first == span.last else Level.CASCADE
    site = Site(chain=chain, layer=layer, module=span.last, modules=len(groups), level=level, loss=loss)
    reference = next(chain.layers[layer].parameters(), torch.empty(0))
    auxiliary = rule.auxiliary(site).to(device=reference.device, dtype=reference.dtype)
    return Objective(
        first=span.first,
        last=span.last,
        weight=span.weight,
        auxiliary=auxiliary,
        copy_features=writes_on_its_features(auxiliary, site, reference),
    )


@contextmanager
def _random_numbers_of_its_own(seed: int) -> Iterator[None]:
    """Networks made inside draw from `seed`, on the CPU; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield

"""What a rule answers, checked: a mistake of its author is told in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from locallearn._chain.partition import Partition
from locallearn._chain.refusals import refuse_lazy
from locallearn._objectives.auxiliary import Auxiliary, auxiliary_or_refuse
from locallearn._objectives.objective import Objective, Site, Span
from locallearn._utils.errors import LocalLearnError, kind_of
from locallearn._utils.quantities import counted
from locallearn.rules.base import Rule
from locallearn.rules.wrapper import Wrapper, base_of


def checked_partition(rule: Rule, partition: Partition) -> Partition:
    """The modules that a rule leaves of those the user asked for."""
    remaining = rule.partition(partition)
    if not isinstance(remaining, Partition):
        raise LocalLearnError(
            f"{rule}.partition returned {kind_of(remaining)}: return a locallearn.Partition, as Partition((1, 3)) for"
            " modules that end with layers 1 and 3."
        )
    ends, last = remaining.ends, partition.ends[-1]
    if ends[-1:] != (last,) or list(ends) != sorted({*ends} & {*range(last + 1)}):
        raise LocalLearnError(
            f"{type(rule).__name__}.partition gives modules that end with layers {ends}: these must rise from 0 or"
            f" more, up to {last}, the network's last."
        )
    return remaining


def checked_spans(rule: Rule, modules: int) -> list[Span]:
    """Spans in order of `last`, narrow ones first; each module must be in one, and the last one must end one."""
    spans = rule.spans(modules)
    for span in spans if isinstance(spans, list | tuple) else [spans]:
        if not isinstance(span, Span):
            raise LocalLearnError(
                f"{rule}.spans returned {kind_of(span)}: return a list of locallearn.Span(first=..., last=...)."
            )
    listed = ", ".join(f"({span.first}, {span.last})" for span in spans) or "none"
    gives = f"{type(rule).__name__} gives spans {listed} over {counted(modules, 'module')}"
    if any(not 0 <= span.first <= span.last < modules for span in spans):
        raise LocalLearnError(f"{gives}: first and last must be modules, from 0 to {modules - 1}, in this order.")
    spans_that_train = [span for span in spans if span.weight]
    covered = {module for span in spans_that_train for module in range(span.first, span.last + 1)}
    if missing := sorted(set(range(modules)) - covered):
        raise LocalLearnError(f"{gives}: no objective of a weight above 0 trains module {missing[0]}.")
    if all(span.last < modules - 1 for span in spans_that_train):
        raise LocalLearnError(f"{gives}: none ends with the last module, so nothing trains the classifier.")
    return sorted(spans, key=lambda span: (span.last, -span.first))


def checked_auxiliary(rule: Rule, site: Site) -> Auxiliary:
    """A new auxiliary network for a site."""
    try:
        auxiliary = rule.auxiliary(site)
    except (AttributeError, TypeError):
        if isinstance(rule, Wrapper):  # is it because of what the rule inside returned?
            checked_auxiliary(base_of(rule), site)
        raise
    auxiliary = auxiliary_or_refuse(auxiliary, f"{rule}.auxiliary returned")
    refuse_lazy(auxiliary, "give the sizes that the site tells, as site.channels")
    return auxiliary


def refuse_shared_networks(model: nn.Module, objectives: Sequence[Objective], names: Sequence[str]) -> None:
    """Refuse auxiliary networks that share a parameter with the backbone, or with those of another module.

    Args:
        model: the backbone.
        objectives: the objectives, without those that end in the classifier.
        names: for each module the name of its last layer.
    """
    owner = {id(parameter): f"the network ({name!r})" for name, parameter in model.named_parameters()}
    for objective in objectives:
        here = f"the auxiliary network after layer {names[objective.last]!r}"
        for name, parameter in objective.auxiliary.named_parameters():
            if (other := owner.setdefault(id(parameter), here)) != here:
                raise LocalLearnError(
                    f"{here} shares its parameter {name!r} with {other}, so local modules would train each other's:"
                    " make it anew for each site, as by copy.deepcopy(layer)."
                )

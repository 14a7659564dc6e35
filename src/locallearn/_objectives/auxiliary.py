"""Auxiliary networks: from a local module's features to its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import TypeAlias, TypeGuard

import torch
from torch import Tensor, nn

from locallearn._chain.layout import carry
from locallearn._nn.ema import EmaCopy
from locallearn._utils.errors import LocalLearnError, kind_of

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (batch, classes) and targets to a scalar."""

Outputs: TypeAlias = "Tensor | tuple[Outputs, ...]"
"""Outputs of a network: vectors (batch, n), images (batch, channels, height, width), or tuples of them."""


class Auxiliary(nn.Module):
    """An auxiliary network. Subclass it, or use `Head`.

    A subclass defines `forward`, or `outputs` and `loss_of`. With the latter two, wrappers such as `PFF` can compute
    the outputs patch by patch.

    Attributes:
        prefix: prefix tokens that its features carry (`Layout.to_carrying_map`); 0 where it takes plain maps.
        needs_class_indices: whether its loss takes one class for each image, and neither probabilities nor several.
    """

    prefix: int = 0
    needs_class_indices: bool = False

    def forward(self, features: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """The scalar loss.

        Args:
            features: output of the module, (batch, channels, height, width) or (batch, channels).
            images: the network's input.
            labels: targets as given to `backward`.
        """
        return self.loss_of(self.outputs(features, images), images, labels)

    def outputs(self, features: Tensor, images: Tensor) -> Outputs:
        """The network's outputs for the features. It may use the size of the images, not their values."""
        raise NotImplementedError(f"{type(self).__name__} has no outputs()")

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        """The scalar loss of `outputs`."""
        raise NotImplementedError(f"{type(self).__name__} has no loss_of()")

    def logits(self, features: Tensor) -> Tensor | None:
        """Logits of shape (batch, classes), or None where the network does not classify."""
        return None

    def after_backward(self) -> None:
        """Called once per training step, after the last backward through this network and before the optimizer.

        By default it updates the EMA copies inside, and calls this method of auxiliary networks inside that define
        their own. EMA copies read weights of before the step, also where modules step as soon as their gradients are
        complete.
        """
        for part in _parts_to_tell(self, {id(self)}):
            part.update() if isinstance(part, EmaCopy) else part.after_backward()

    def with_parts(self, change: Callable[[Auxiliary], Auxiliary | None]) -> Auxiliary | None:
        """Apply `change` to each term; a term for which it returns None is removed. Weights of the others stay.

        A network that is no sum is its own only term. A sum with one remaining term becomes that term, with weight one.
        Returns None where no term remains.
        """
        return change(self)


def auxiliary_or_refuse(network: object, whose: str) -> Auxiliary:
    """A network that must be an auxiliary network; `whose` begins the sentence that refuses any other."""
    if isinstance(network, Auxiliary):
        return network
    raise LocalLearnError(
        f"{whose} {kind_of(network)}: give a new locallearn.Auxiliary, as locallearn.Head(network, site.loss)."
    )


class Head(Auxiliary):
    """A classifying auxiliary network: `network` maps features to logits, `loss` compares them with the labels.

    Args:
        network: the network.
        loss: from logits and labels to a scalar.
        prefix: prefix tokens that the features carry.
    """

    def __init__(self, network: nn.Module, loss: Loss, *, prefix: int = 0) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.prefix = prefix

    def outputs(self, features: Tensor, images: Tensor) -> Tensor:
        return self.network(features)

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(outputs, Tensor)
        return self.loss(outputs, labels)

    def logits(self, features: Tensor) -> Tensor | None:
        return self.network(features)


class WeightedSum(Auxiliary):
    """Several networks on the same features; the loss is the weighted sum of theirs.

    Args:
        terms: pairs of weight and network.
    """

    outside_structure = ("weights",)

    def __init__(self, terms: Sequence[tuple[float, Auxiliary]]) -> None:
        super().__init__()
        self.weights = tuple(weight for weight, _ in terms)
        self.terms = nn.ModuleList(term for _, term in terms)
        self.prefix = max(term.prefix for _, term in terms)

    def forward(self, features: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return self._weighted(term(self._seen(term, features), images, labels) for term in self._terms)

    def outputs(self, features: Tensor, images: Tensor) -> Outputs:
        return tuple(term.outputs(self._seen(term, features), images) for term in self._terms)

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        pairs = zip(self._terms, outputs, strict=True)
        return self._weighted(term.loss_of(output, images, labels) for term, output in pairs)

    def logits(self, features: Tensor) -> Tensor | None:
        each = (term.logits(self._seen(term, features)) for term in self._terms)
        return next((logits for logits in each if logits is not None), None)

    def with_parts(self, change: Callable[[Auxiliary], Auxiliary | None]) -> Auxiliary | None:
        terms = [(weight, term.with_parts(change)) for weight, term in zip(self.weights, self._terms, strict=True)]
        remaining = [(weight, term) for weight, term in terms if term is not None]
        if len(remaining) < 2:
            return remaining[0][1] if remaining else None
        return WeightedSum(remaining)

    def _seen(self, term: Auxiliary, features: Tensor) -> Tensor:
        return carry(features, self.prefix, term.prefix)

    def _weighted(self, losses: Iterable[Tensor]) -> Tensor:
        return reduce(torch.add, (weight * loss for weight, loss in zip(self.weights, losses, strict=True)))

    @property
    def _terms(self) -> list[Auxiliary]:
        return list(self.terms)  # pyright: ignore[reportReturnType]


class WithFront(Auxiliary):
    """An auxiliary network with more layers in front: `auxiliary(front(features))`.

    Args:
        front: the layers.
        auxiliary: the network.
        prefix: prefix tokens that the features carry.
        passes: prefix tokens that the front's output carries.
    """

    def __init__(self, front: nn.Module, auxiliary: Auxiliary, *, prefix: int = 0, passes: int = 0) -> None:
        super().__init__()
        self.front = front
        self.auxiliary = auxiliary_or_refuse(auxiliary, "WithFront takes")
        self.prefix, self.passes = prefix, passes

    def forward(self, features: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return self.auxiliary(self._after_front(features), images, labels)

    def outputs(self, features: Tensor, images: Tensor) -> Outputs:
        return self.auxiliary.outputs(self._after_front(features), images)

    def loss_of(self, outputs: Outputs, images: Tensor, labels: Tensor) -> Tensor:
        return self.auxiliary.loss_of(outputs, images, labels)

    def logits(self, features: Tensor) -> Tensor | None:
        return self.auxiliary.logits(self._after_front(features))

    def with_parts(self, change: Callable[[Auxiliary], Auxiliary | None]) -> Auxiliary | None:
        changed = self.auxiliary.with_parts(change)
        return None if changed is None else WithFront(self.front, changed, prefix=self.prefix, passes=self.passes)

    def _after_front(self, features: Tensor) -> Tensor:
        return carry(self.front(features), self.passes, self.auxiliary.prefix)


def _parts_to_tell(network: nn.Module, seen: set[int]) -> Iterator[EmaCopy | Auxiliary]:
    """EMA copies and auxiliary networks inside that `after_backward` reaches, each once; not those inside of these."""
    for part in network.children():
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, EmaCopy) or defines_after_backward(part):
            yield part
        else:
            yield from _parts_to_tell(part, seen)


def defines_after_backward(part: nn.Module) -> TypeGuard[Auxiliary]:
    """Whether it is an auxiliary network with an `after_backward` of its own."""
    is_auxiliary = isinstance(part, Auxiliary)
    return is_auxiliary and getattr(part.after_backward, "__func__", None) is not Auxiliary.after_backward


def part_without_outputs(auxiliary: Auxiliary) -> Auxiliary | None:
    """The first auxiliary network inside that defines `forward` without `outputs`, or None."""
    parts = (part for part in auxiliary.modules() if isinstance(part, Auxiliary))
    return next((part for part in parts if type(part).outputs is Auxiliary.outputs), None)


def is_head(auxiliary: Auxiliary) -> bool:
    """Whether its outputs are its logits, which are all that its loss sees: a head, or one after more layers."""
    while type(auxiliary) is WithFront:
        auxiliary = auxiliary.auxiliary
    return type(auxiliary) is Head


def loss_is_of_outputs(auxiliary: Auxiliary) -> bool:
    """Whether `forward` is `loss_of` of `outputs` and no code of a subclass's own."""
    parts = (type(part) for part in auxiliary.modules() if isinstance(part, Auxiliary))
    return all(part.forward in _FORWARD_OF_OUTPUTS and part.outputs is not Auxiliary.outputs for part in parts)


_FORWARD_OF_OUTPUTS = (Auxiliary.forward, WeightedSum.forward, WithFront.forward)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network, in order: modules that hold several layers with weights, as residual blocks do.

    Neither containers nor auxiliary networks are blocks.
    """
    leaves = [child for child in network.children() if not any(True for _ in child.children())]
    weighted = [leaf for leaf in leaves if next(leaf.parameters(), None) is not None]
    if len(weighted) > 1 and not isinstance(network, nn.Sequential | nn.ModuleList | Auxiliary):
        return [network]
    return [block for child in network.children() for block in blocks_of(child)]

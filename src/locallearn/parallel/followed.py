"""EMA copies whose layer is in a later process: its weights are sent back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from locallearn._nn.ema import EmaCopy
from locallearn._objectives.auxiliary import Auxiliary
from locallearn._objectives.objective import Objective
from locallearn.parallel.assignment import Assignment
from locallearn.parallel.channel import Receiver, Sender, packed, unpacked


@dataclass
class Link:
    """Layers of one process that EMA copies of an earlier one follow.

    Attributes:
        layers: the layers, each once.
        copies: each copy with the index of its layer.
    """

    layers: list[nn.Module] = field(default_factory=list)
    copies: list[tuple[EmaCopy, int]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of the layers' weights."""
        return sum(parameter.nbytes for layer in self.layers for parameter in layer.parameters())

    def add(self, copy: EmaCopy, layer: nn.Module) -> None:
        """Add a copy of a layer."""
        if not any(layer is known for known in self.layers):
            self.layers.append(layer)
        index = next(index for index, known in enumerate(self.layers) if known is layer)
        self.copies.append((copy, index))


def links(
    objectives: Sequence[Objective], assignment: Assignment, owner: Mapping[int, int]
) -> dict[tuple[int, int], Link]:
    """The links of a network, by the rank of the layers and the rank of their copies; equal in all processes."""
    found: dict[tuple[int, int], Link] = {}
    seen: set[int] = set()
    for objective in objectives:
        rank = assignment.rank_of(objective.last)
        for copy in ema_copies(objective.auxiliary):
            first = next((p for source in copy.sources for p in source.parameters()), None)
            if first is None or id(copy) in seen or owner[id(first)] == rank:
                continue
            seen.add(id(copy))
            found.setdefault((owner[id(first)], rank), Link()).add(copy, copy.sources[0])
    return found


def ema_copies(auxiliary: Auxiliary) -> Iterator[EmaCopy]:
    """The EMA copies in an auxiliary network."""
    return (part for part in auxiliary.modules() if isinstance(part, EmaCopy))


class FollowedLayers:
    """The end of a link that has the layers: it sends their weights before each step."""

    def __init__(self, link: Link, sender: Sender) -> None:
        self._parameters = [parameter for layer in link.layers for parameter in layer.parameters()]
        self.sender = sender

    def send(self) -> None:
        """Send the weights as they are now."""
        self.sender.send(0, packed(self._parameters))


class Followers:
    """The end of a link that has the copies.

    A copy moves towards its layer as this was before the step. It does so when it is used next, or at once where the
    optimizer trains it too, since the optimizer's step comes after.

    Args:
        link: the link.
        receiver: of the layers' weights.
        age: how many steps older the weights may be, after the first steps, so that nobody waits.
    """

    def __init__(self, link: Link, receiver: Receiver, *, age: int) -> None:
        self._names = [[name for name, _ in layer.named_parameters()] for layer in link.layers]
        self._like = [torch.empty_like(p, device="meta") for layer in link.layers for p in layer.parameters()]
        self._layer_of = dict(link.copies)
        for copy, _ in link.copies:
            copy.sources = ()
        self._receiver, self._age = receiver, age
        self._steps = dict.fromkeys(self._layer_of, 0)
        self._due: list[tuple[EmaCopy, int]] = []
        self._version = -1
        self._weights: list[dict[str, Tensor]] = []

    def before_use(self, auxiliary: Auxiliary) -> None:
        """Move what is due, if an auxiliary network has such a copy."""
        if self._due:
            inside = set(ema_copies(auxiliary))
            if any(copy in inside for copy, _ in self._due):
                self.settle()

    def after_last_use(self, auxiliary: Auxiliary) -> None:
        """The copies in an auxiliary network are due to move."""
        for copy in ema_copies(auxiliary):
            if copy in self._layer_of:
                self._due.append((copy, max(0, self._steps[copy] - self._age)))
                self._steps[copy] += 1
                if any(True for _ in copy.network.parameters()):
                    self.settle()

    def settle(self) -> None:
        """Move all copies that are due; waits for the weights."""
        for copy, version in self._due:
            while self._version < version:
                self._receive()
            copy.move_towards(self._weights[self._layer_of[copy]])
        self._due.clear()

    def _receive(self) -> None:
        (values,) = self._receiver.receive().tensors
        tensors = iter(unpacked(values, self._like))
        self._weights = [{name: next(tensors) for name in names} for names in self._names]
        self._version += 1

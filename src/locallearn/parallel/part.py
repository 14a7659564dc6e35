"""A part of a network: some consecutive local modules, their auxiliary networks, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from locallearn._engine.local_net import LocalNet
from locallearn._engine.step import Step
from locallearn._objectives.auxiliary import Auxiliary, Head, WeightedSum, WithFront
from locallearn._objectives.patchwise import Patchwise
from locallearn.parallel.assignment import Assignment, own_tensors
from locallearn.rules.infopro import ContrastiveHead
from locallearn.rules.predsim import SimilarityMatching

_WITHOUT_IMAGES = {Head, WeightedSum, WithFront, Patchwise, ContrastiveHead, SimilarityMatching}
"""Auxiliary networks that do not read the images' values; those of other classes may."""


class NetPart(LocalNet):
    """The local modules that a network has in one of several processes.

    Modules have the numbers of the whole network, parameters and buffers its names. `parameters()`, `buffers()`,
    `parameters_of`, `objectives` and `local_modules` are those of the part.

    Args:
        net: the network, which is taken over: the part has its modules and settings.
        assignment: of modules to processes.
        rank: the process.
        owner: the process of each parameter and buffer, by its id.

    Attributes:
        assignment: as given.
        rank: as given.
        of_network: the objectives of the whole network.
    """

    def __init__(self, net: LocalNet, assignment: Assignment, rank: int, owner: dict[int, int]) -> None:
        nn.Module.__init__(self)
        own = own_tensors(net, assignment, rank, owner)
        named = (*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False))
        vars(self).update(vars(net))
        self._own_names = frozenset(name for name, tensor in named if id(tensor) in own)
        self.assignment, self.rank = assignment, rank
        self.of_network = net.objectives
        self.part = assignment.part(rank)
        self.objectives = tuple(objective for objective in net.objectives if objective.last in self.part)
        self.local_modules = net.local_modules[self.part.start : self.part.stop]
        self.recompute_plans = {}

    def reads_images(self, first: int) -> bool:
        """Whether an auxiliary network of the network's modules from `first` on may read the images' values."""
        return any(_reads_images(o.auxiliary) for o in self.of_network if o.last >= first)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The part's parameters, by their names in the whole network."""
        everything = super().named_parameters("", recurse, remove_duplicate)
        return ((_joined(prefix, name), tensor) for name, tensor in everything if name in self._own_names)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The part's buffers, by their names in the whole network."""
        everything = super().named_buffers("", recurse, remove_duplicate)
        return ((_joined(prefix, name), tensor) for name, tensor in everything if name in self._own_names)

    def step(self, images: Tensor, labels: Tensor, **settings: Any) -> Step:
        return super().step(images, labels, objectives=self.of_network, **settings)


def _reads_images(auxiliary: Auxiliary) -> bool:
    return any(isinstance(part, Auxiliary) and type(part) not in _WITHOUT_IMAGES for part in auxiliary.modules())


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name

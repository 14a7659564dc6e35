"""The sites of a partition's auxiliary networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from locallearn._chain.chain import TracedChain
from locallearn._chain.partition import Partition
from locallearn._objectives.auxiliary import Head, Loss
from locallearn._objectives.objective import Level, Site


@dataclass(frozen=True)
class Sites:
    """Makes the sites; holds all that they share."""

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
        """A parameter near a layer, for the device and type of its auxiliary network."""
        near = (*reversed(self.chain.layers[: layer + 1]), *self.chain.layers[layer + 1 :], self.chain.classifier)
        return next(parameter for part in near for parameter in part.parameters())

    def site(self, first: int, last: int) -> Site:
        """The site of an objective over the modules from `first` to `last`."""
        return Site(
            chain=self.chain,
            layer=self.partition.ends[last],
            module=last,
            modules=len(self.partition),
            level=Level.INDEPENDENT if first == last else Level.CASCADE,
            loss=self.loss,
            published_modules=self.partition.published or len(self.partition),
            schedule_index=last,
            image_mean=self.image_mean,
            image_std=self.image_std,
        )

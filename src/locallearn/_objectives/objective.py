"""Objectives over a chain of local modules, and what a rule is told to make them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from locallearn._chain.chain import TracedChain
from locallearn._chain.layout import MAP, Layout, Shape
from locallearn._objectives.auxiliary import Auxiliary, Loss


class Level(Enum):
    """What an objective's auxiliary network is for."""

    INDEPENDENT = "one module"
    CASCADE = "several neighbouring modules"


@dataclass(frozen=True, kw_only=True)
class Span:
    """Which modules one objective trains.

    Attributes:
        first, last: indices of local modules; gradient flows from `last` back to `first` and no further.
        weight: factor of the loss.
        recompute: drop what the layers compute and recompute it, layer by layer, in the backward pass.
    """

    first: int
    last: int
    weight: float = 1.0
    recompute: bool = False


@dataclass(frozen=True, kw_only=True)
class Site:
    """The place of one auxiliary network, and all that a rule may ask about it.

    Attributes:
        chain: the backbone's layers and their shapes.
        layer: index of the layer after which the auxiliary network sits.
        module: index of the local module that ends with that layer.
        modules: number of local modules, M.
        level: whether it serves one module or a cascade.
        loss: the task's loss.
        published_modules: number of modules as a published split is named, else `modules`.
        schedule_index: index by which weights that change over the modules count this one: `module`, unless a wrapper
            says otherwise.
        image_mean, image_std: of each channel, of the normalisation that images go through.
    """

    chain: TracedChain
    layer: int
    module: int
    modules: int
    level: Level
    loss: Loss
    published_modules: int
    schedule_index: int
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]

    @property
    def shape(self) -> Shape:
        """Channels, height, width of the features there, tokens seen as a map."""
        return self.chain.shapes[self.layer]

    @property
    def is_vector(self) -> bool:
        """Whether the features there are (batch, channels)."""
        return self.chain.vectors[self.layer]

    @property
    def progress(self) -> float:
        """How far along the modules, i / (K - 2), of K published modules; 0 if K <= 2 (InfoPro, official code)."""
        return self.schedule_index / (self.published_modules - 2) if self.published_modules > 2 else 0.0

    @property
    def image_shape(self) -> Shape:
        """Channels, height, width of an image."""
        return self.chain.image_shape

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.chain.classes


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One loss over neighbouring local modules.

    Attributes:
        first, last, weight: as in `Span`.
        auxiliary: an `Auxiliary`; the last module's is the backbone's own classifier with the task's loss.
        layout: of the module's features, which the auxiliary network sees as a map, and the classifier as they are.
        copy_features: whether the auxiliary network writes on its input, so that it must be given a copy.
    """

    first: int
    last: int
    auxiliary: Auxiliary
    weight: float = 1.0
    layout: Layout = MAP
    copy_features: bool = False

    def loss(self, features: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """The loss on the features of module `last`, unweighted."""
        return self.auxiliary(self.seen(features), images, labels)

    def logits(self, features: Tensor) -> Tensor | None:
        """Logits on the features of module `last`, or None where the auxiliary network does not classify."""
        return self.auxiliary.logits(self.seen(features))

    def seen(self, features: Tensor) -> Tensor:
        """The features as the auxiliary network is given them."""
        maps = self.layout.to_map(features)
        return maps.clone() if self.copy_features else maps

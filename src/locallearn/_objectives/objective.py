"""Objectives over local modules, and the sites for which a rule makes auxiliary networks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from locallearn._chain.chain import TracedChain
from locallearn._chain.layout import MAP, Layout, Shape
from locallearn._objectives.auxiliary import Auxiliary, Loss


class Level(Enum):
    """Whether an objective's auxiliary network serves one module or several."""

    INDEPENDENT = "one module"
    CASCADE = "several neighbouring modules"


@dataclass(frozen=True, kw_only=True)
class Span:
    """Which modules one objective trains.

    Attributes:
        first, last: indices of local modules; gradient flows from `last` back to `first` and no further.
        weight: factor of the loss.
        recompute: checkpoint each layer: store its input alone, and run it again in the backward pass.
    """

    first: int
    last: int
    weight: float = 1.0
    recompute: bool = False


@dataclass(frozen=True, kw_only=True)
class Site:
    """The place of one auxiliary network, with all that a rule may use to build it.

    Attributes:
        chain: the backbone's layers and their shapes.
        layer: index of the layer after which the auxiliary network sits.
        module: index of the local module that ends with that layer.
        modules: number of local modules, M.
        level: whether it serves one module or a cascade.
        loss: the task's loss.
        published_modules: number of modules as a published split is named, else `modules`.
        schedule_index: index for weights that change over the modules: `module`, unless a wrapper changes it.
        image_mean, image_std: of each channel, with which the images were normalised.
        reduced: channels, height, width to which a wrapper has reduced the layer's output, or None.
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
    reduced: Shape | None = None

    @property
    def shape(self) -> Shape:
        """Channels, height, width of the features: the layer's output as a map, or what it is reduced to.

        Raises:
            LocalLearnError: it is no map and no vector.
        """
        return self.reduced or self.chain.layout_of_map(self.layer).shape

    @property
    def channels(self) -> int:
        """Channels of the features, be they a map or not."""
        return self.reduced[0] if self.reduced else self.chain.width(self.layer)

    @property
    def is_vector(self) -> bool:
        """Whether the layer's output is (batch, channels)."""
        return self.chain.vectors[self.layer]

    @property
    def prefix(self) -> int:
        """Prefix tokens (e.g. the class token) in the layer's output."""
        return self.chain.layouts[self.layer].prefix

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
        layout: of the module's features. Auxiliary networks take them as maps, those that begin with copies of layers
            as maps that carry the prefix tokens; the classifier takes them unchanged.
        copy_features: whether the auxiliary network writes on its input, so that it gets a copy.
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
        """The features as the auxiliary network takes them."""
        maps = self.layout.to_carrying_map(features) if self.auxiliary.prefix else self.layout.to_map(features)
        return maps.clone() if self.copy_features else maps

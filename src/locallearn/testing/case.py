"""What is checked: a rule and a network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn

from locallearn._chain.layout import Shape
from locallearn._engine.local_net import LocalNet
from locallearn._localize import localize
from locallearn._objectives.auxiliary import Loss
from locallearn.rules import DGL, Rule
from locallearn.testing.networks import SMALL, TINY, plain_chain, resnet14


@dataclass(frozen=True, kw_only=True)
class Case:
    """A rule, a network to train by it, and the shape of the network's images.

    Attributes:
        rule: the rule.
        make: makes the network, always with the same weights. Dropout is off in the checks; switch off whatever else is
            random in its forward pass.
        image_shape: channels, height, width of one image.
        layers: as for `localize`.
        loss: the task's loss, which takes class indices.
    """

    rule: Rule = field(default_factory=DGL)
    make: Callable[[], nn.Module] = resnet14
    image_shape: Shape = SMALL
    layers: tuple[str, ...] | None = None
    loss: Loss = F.cross_entropy
    _nets: dict[Hashable, LocalNet] = field(default_factory=dict, init=False, repr=False, compare=False)

    def net(
        self, *, modules: str | int = "all", dtype: torch.dtype = torch.float32, image_shape: Shape | None = None
    ) -> LocalNet:
        """The localized network; equal arguments give equal weights.

        A case localizes a network once for each partition and image shape. It returns deep copies, which take a tenth
        of the time.

        Args:
            modules: as for `localize`.
            dtype: of parameters and buffers.
            image_shape: channels, height, width of one image; by default the case's.
        """
        shape = image_shape or self.image_shape
        key = modules, *shape
        if key not in self._nets:
            self._nets[key] = self.localized(self.make(), modules=modules, image_shape=shape)
        return copy.deepcopy(self._nets[key]).to(dtype)

    def localized(self, model: nn.Module, *, modules: str | int = "all", image_shape: Shape | None = None) -> LocalNet:
        """A given network, localized as the case's own; the network itself, not a copy."""
        shape = image_shape or self.image_shape
        return localize(model, self.rule, modules=modules, input_shape=shape, layers=self.layers, loss=self.loss)

    @cached_property
    def quick(self) -> Case:
        """The case for long checks: where the rule alone is under test, the same rule on a smaller network."""
        return replace(self, make=plain_chain, image_shape=TINY) if self.make is resnet14 else self

    def takes(self, image_shape: Shape) -> bool:
        """Whether the network accepts images of this shape; some are bound to one size."""
        try:
            with torch.no_grad():
                self.make().eval()(torch.zeros(2, *image_shape))
        except (RuntimeError, ValueError, AssertionError):
            return False
        return True

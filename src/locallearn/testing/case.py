"""What is checked: a rule and a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from locallearn._chain.layout import Shape
from locallearn._engine.local_net import LocalNet
from locallearn._localize import localize
from locallearn.rules import DGL, Rule
from locallearn.testing.networks import SMALL, TINY, plain_chain, resnet14


@dataclass(frozen=True, kw_only=True)
class Case:
    """A rule, a network to train by it, and the network's images.

    Attributes:
        rule: the rule.
        make: makes the network, always with the same weights; what is random in its forward (dropout) must be off.
        image_shape: channels, height, width of one image.
        layers: as for `localize`.
    """

    rule: Rule = field(default_factory=DGL)
    make: Callable[[], nn.Module] = resnet14
    image_shape: Shape = SMALL
    layers: tuple[str, ...] | None = None

    def net(
        self,
        *,
        modules: str | int = "all",
        dtype: torch.dtype = torch.float32,
        model: nn.Module | None = None,
        image_shape: Shape | None = None,
        seed: int = 0,
    ) -> LocalNet:
        """The localized network, or `model` as if it were this one; equal arguments give equal weights."""
        model = self.make() if model is None else model
        shape = image_shape or self.image_shape
        return localize(model.to(dtype), self.rule, modules=modules, input_shape=shape, layers=self.layers, seed=seed)

    def quick(self) -> Case:
        """Where only the rule is under test, the same rule on a smaller network, for what takes long."""
        return Case(rule=self.rule, make=plain_chain, image_shape=TINY) if self.make is resnet14 else self

    def takes(self, image_shape: Shape) -> bool:
        """Whether the network itself takes images of this shape, as those bound to a size do not."""
        try:
            with torch.no_grad():
                self.make().eval()(torch.zeros(2, *image_shape))
        except (RuntimeError, ValueError, AssertionError):
            return False
        return True

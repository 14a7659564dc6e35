"""What is checked: a rule and a network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
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
    _nets: dict[Hashable, LocalNet] = field(default_factory=dict, init=False, repr=False, compare=False)

    def net(
        self,
        *,
        modules: str | int = "all",
        dtype: torch.dtype = torch.float32,
        model: nn.Module | None = None,
        image_shape: Shape | None = None,
        seed: int = 0,
    ) -> LocalNet:
        """The localized network; equal arguments give equal weights.

        The case localizes a network once and returns deep copies, which take a tenth of the time.

        Args:
            modules: as for `localize`.
            dtype: of parameters and buffers.
            model: a network to localize, itself and not a copy, in place of the case's own.
            image_shape: channels, height, width of one image; by default the case's.
            seed: of the auxiliary networks' first weights.
        """
        shape = image_shape or self.image_shape

        def build(network: nn.Module) -> LocalNet:
            return localize(
                network.to(dtype), self.rule, modules=modules, input_shape=shape, layers=self.layers, seed=seed
            )

        if model is not None:
            return build(model)
        key = modules, dtype, shape, seed
        if key not in self._nets:
            self._nets[key] = build(self.make())
        return copy.deepcopy(self._nets[key])

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

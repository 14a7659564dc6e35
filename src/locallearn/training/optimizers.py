"""Settings of the optimizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.typed_settings import TypedSettings


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(TypedSettings, ABC):
    """Settings that all optimizers have.

    Args:
        lr: the schedule's base learning rate.
        weight_decay: decay of the weights.
        decay_norms_and_biases: whether batch normalisations and biases decay too, as in all papers' official code.
    """

    lr: float = 0.1
    weight_decay: float = 1e-4
    decay_norms_and_biases: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr < 0 or self.weight_decay < 0:
            raise LocalLearnError(f"{type(self).__name__}: lr and weight_decay must not be negative.")

    @abstractmethod
    def make(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """The optimizer of these parameters.

        Groups may have learning rates of their own, which a schedule changes in proportion to `lr`.
        """

    def _groups(self, parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
        if self.decay_norms_and_biases:
            return [{"params": list(parameters), "weight_decay": self.weight_decay}]
        # scales, shifts and biases are the parameters with one dimension
        matrices = [p for p in parameters if p.dim() > 1]
        vectors = [p for p in parameters if p.dim() <= 1]
        decays = ((matrices, self.weight_decay), (vectors, 0.0))
        return [{"params": group, "weight_decay": decay} for group, decay in decays if group]


@dataclass(frozen=True, kw_only=True)
class SGD(OptimizerSettings):
    """Stochastic gradient descent with Nesterov momentum, the optimizer of all papers.

    Args:
        lr: the papers' is 0.8 at batch 1024.
        momentum: share of the last step's direction in the next.
        nesterov: whether to use Nesterov's momentum.
    """

    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum < 0:
            raise LocalLearnError(f"SGD: momentum={self.momentum} must not be negative.")

    def make(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        groups = self._groups(parameters)
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=nesterov, fused=True)


@dataclass(frozen=True, kw_only=True)
class AdamW(OptimizerSettings):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
        lr: the schedule's base learning rate.
        weight_decay: decay of the weights, times the learning rate.
        beta1, beta2: decay of the running mean of the gradient and of its square.
    """

    lr: float = 1e-3
    weight_decay: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise LocalLearnError(f"AdamW: beta1={self.beta1} and beta2={self.beta2} must be from 0 to below 1.")

    def make(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        return torch.optim.AdamW(self._groups(parameters), lr=self.lr, betas=(self.beta1, self.beta2), fused=True)

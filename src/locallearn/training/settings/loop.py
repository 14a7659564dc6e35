"""Settings of any training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.registry import path_of
from locallearn._utils.typed_settings import TypedSettings
from locallearn.training.averaging import WeightAverage
from locallearn.training.optimizers import SGD, OptimizerSettings


@dataclass(frozen=True, kw_only=True)
class LoopSettings(TypedSettings, ABC):
    """What `Loop` needs to know.

    Args:
        epochs: passes over the training split.
        optimizer: the optimizer and its base learning rate.
        precision: "fp32", or "bf16" for mixed precision with bfloat16.
        checkpoint_every: optimizer steps between checkpoints within an epoch; there is always one after each epoch.
        loggers: where metrics go besides metrics.jsonl, as in [tensorboard,wandb]; one of your own by its dotted path.
    """

    epochs: int = 10
    optimizer: OptimizerSettings = field(default_factory=SGD)
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: int | None = None
    loggers: tuple[str, ...] = ("tensorboard",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_below(1, "epochs", "checkpoint_every")
        for name in self.loggers:
            path_of("loggers", name)  # refuses an unknown one

    @staticmethod
    def refuse_seed(seed: int) -> None:
        """Refuse a seed that PyTorch or NumPy would not take, also after the number of an epoch is added.

        Raises:
            LocalLearnError: says which seeds there are.
        """
        if not 0 <= seed < 2**32:
            raise LocalLearnError(f"seed={seed} must be at least 0 and below 2**32.")

    def refuse_below(self, least: int, *names: str) -> None:
        """Refuse settings with a smaller value; None is none.

        Raises:
            LocalLearnError: names the setting.
        """
        for name in names:
            value = getattr(self, name)
            if value is not None and value < least:
                raise LocalLearnError(f"{name}={value} must be at least {least}.")

    @property
    def autocast(self) -> torch.dtype | None:
        """The type of mixed precision, or None."""
        return torch.bfloat16 if self.precision == "bf16" else None

    @abstractmethod
    def make_stepper(self, net: Any) -> Any:
        """What steps the network's parameters, with the state of its optimizers."""

    def average_of(self, net: Any) -> WeightAverage | None:
        """The moving average of the network's weights, if it is asked for."""
        return None

    @abstractmethod
    def lr(self, *, epoch: int, step: int, steps: int) -> float:
        """The learning rate of a step.

        Args:
            epoch: from 1.
            step: within the epoch, from 0.
            steps: number of steps in an epoch.
        """

"""PyTorch's own learning rate schedulers as schedules."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import lr_scheduler

from locallearn._utils.errors import LocalLearnError, describe, refuse_unknown
from locallearn.training.schedules import Schedule

_UNFIT = {"LRScheduler", "ReduceLROnPlateau", "LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
"""They look at metrics, or take functions or other schedulers."""

_WRONG = (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError)
"""What schedulers raise for wrong arguments."""

SCHEDULERS: Mapping[str, Any] = {
    name: kind
    for name, kind in vars(lr_scheduler).items()
    if inspect.isclass(kind) and issubclass(kind, lr_scheduler.LRScheduler) and name not in _UNFIT | {"_LRScheduler"}
}
"""The classes of `torch.optim.lr_scheduler` that numbers alone describe."""


@dataclass(frozen=True, kw_only=True)
class TorchSchedule(Schedule):
    """A class of `torch.optim.lr_scheduler`, such as MultiStepLR, OneCycleLR or CosineAnnealingWarmRestarts.

    The learning rate of a step is what PyTorch's scheduler has after that many epochs or steps, counted from the start
    of training. So a run that is resumed has the very rates of one that was not stopped. The max_lr of OneCycleLR and
    CyclicLR is the optimizer's learning rate. Momentum stays as it is. Schedulers that look at metrics, or take
    functions or other schedulers, are refused: derive these from `Schedule`.

    Args:
        scheduler: name of the class.
        arguments: its arguments, but for the optimizer and max_lr. T_max, total_steps and PolynomialLR's total_iters
            are by default the number of epochs or steps of the run.
        each: after what the scheduler advances: each epoch or each step.
    """

    scheduler: str = "CosineAnnealingLR"
    arguments: dict[str, Any] = field(default_factory=dict)
    each: Literal["epoch", "step"] = "epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown("scheduler", self.scheduler, tuple(SCHEDULERS))
        if not isinstance(self.arguments, dict):
            raise LocalLearnError(
                f"TorchSchedule: arguments={self.arguments!r}: give names and values, as in {{gamma: 0.1}}."
            )
        if self.arguments.get("cycle_momentum"):
            raise LocalLearnError(
                f"TorchSchedule: {self.scheduler} cannot change the momentum: leave out cycle_momentum."
            )
        if "max_lr" in self.arguments:
            raise LocalLearnError(
                f"TorchSchedule: the max_lr of {self.scheduler} is the optimizer's learning rate: leave it out, and"
                f" give --optimizer.lr {self.arguments['max_lr']}."
            )
        milestones = self.arguments.get("milestones", [])
        if not isinstance(milestones, list | tuple) or not all(type(milestone) is int for milestone in milestones):
            raise LocalLearnError(f"TorchSchedule: milestones={milestones!r} must be a list of whole numbers.")
        self._rates(0.1, 100)

    def lr(self, base: float, *, epoch: int, epochs: int, step: int, steps: int) -> float:
        per_epoch = steps if self.each == "step" else 1
        done = (epoch - 1) * steps + step if self.each == "step" else epoch - 1
        key = base, epochs * per_epoch
        if key not in self._known:
            self._known[key] = self._rates(*key)
        try:
            return self._known[key].after(done)
        except ValueError as error:
            raise LocalLearnError(
                f"TorchSchedule: {self.scheduler} ends before {self.each} {done + 1} of {key[1]} ({describe(error)})."
            ) from error
        except _WRONG as error:
            raise self._refusal(error) from error

    @cached_property
    def _known(self) -> dict[tuple[float, int], _Rates]:
        return {}

    def _rates(self, base: float, length: int) -> _Rates:
        kind = SCHEDULERS[self.scheduler]
        defaults = {"T_max": length, "total_steps": length, "max_lr": base, "cycle_momentum": False}
        if "steps_per_epoch" in self.arguments:
            del defaults["total_steps"]
        if self.scheduler == "PolynomialLR":
            defaults["total_iters"] = length
        taken = inspect.signature(kind).parameters
        filled = {name: value for name, value in defaults.items() if name in taken}
        try:
            rates = _Rates(kind, base, filled | self.arguments)
            rates.after(1)  # some look at their arguments here only
        except _WRONG as error:
            raise self._refusal(error) from error
        return rates

    def _refusal(self, error: Exception) -> LocalLearnError:
        return LocalLearnError(
            f"TorchSchedule: {self.scheduler} does not take the arguments {self.arguments} ({describe(error)})."
        )


class _Rates:
    """The learning rates of a scheduler, as far as they were asked for."""

    def __init__(self, kind: Any, base: float, arguments: dict[str, Any]) -> None:
        self._optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=base)
        self._scheduler = kind(self._optimizer, **arguments)
        self._optimizer.step()  # or the scheduler would warn
        self._rates = [self._now()]

    def after(self, steps: int) -> float:
        """The learning rate after so many steps of the scheduler."""
        while len(self._rates) <= steps:
            self._scheduler.step()
            self._rates.append(self._now())
        return self._rates[steps]

    def _now(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

"""Learning rate schedules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, inf, pi

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.typed_settings import TypedSettings


@dataclass(frozen=True, kw_only=True)
class Schedule(TypedSettings, ABC):
    """How the learning rate changes during training."""

    @abstractmethod
    def lr(self, base: float, *, epoch: int, epochs: int, step: int, steps: int) -> float:
        """The learning rate of one step.

        Args:
            base: the optimizer's base learning rate.
            epoch: from 1.
            epochs: number of epochs.
            step: within the epoch, from 0.
            steps: number of steps in an epoch.
        """


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from the base learning rate towards 0, falling at each step.

    Args:
        warmup: share of all steps in which it first rises linearly from 0.
    """

    warmup: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.warmup < 1:
            raise LocalLearnError(f"Cosine: warmup={self.warmup} is a share of all steps, from 0 to below 1.")

    def lr(self, base: float, *, epoch: int, epochs: int, step: int, steps: int) -> float:
        done = ((epoch - 1) * steps + step) / (epochs * steps)
        rise = min(1.0, (done + 1 / (epochs * steps)) / self.warmup) if self.warmup else 1.0
        return base * rise * (1 + cos(pi * done)) / 2


@dataclass(frozen=True, kw_only=True)
class PaperCosine(Schedule):
    r"""The papers' schedule: a cosine over epochs that ends at exactly 0, with a warm-up, constant within an epoch.

    .. math::
        lr(e) = lr_0 \frac{1 + \cos(\pi e / E)}{2}, \qquad
        lr'(e) = lr(e) \frac{e - 1}{W} + w \frac{W + 1 - e}{W} \quad\text{for } e \le W

    The warm-up :math:`lr'` is in the official code of all systems (`train.py`) and in none of the papers.

    Args:
        warmup_epochs: W.
        warmup_lr: w, the learning rate of the first epoch.
    """

    warmup_epochs: int = 10
    warmup_lr: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_epochs < 0 or self.warmup_lr < 0:
            raise LocalLearnError("PaperCosine: warmup_epochs and warmup_lr must not be negative.")

    def lr(self, base: float, *, epoch: int, epochs: int, step: int, steps: int) -> float:
        lr = 0.5 * base * (1 + cos(pi * epoch / epochs))
        warmup = self.warmup_epochs
        if epoch <= warmup:
            return lr * (epoch - 1) / warmup + self.warmup_lr * (warmup + 1 - epoch) / warmup
        return lr


@dataclass(frozen=True, kw_only=True)
class ImageNetCosine(Schedule):
    r"""The papers' schedule for ImageNet: a cosine over epochs, constant within an epoch, without warm-up.

    .. math::
        lr(e) = lr_0 \frac{1 + \cos(\pi (e - 1) / E)}{2}

    The first epoch has the base learning rate and the last more than 0, unlike `PaperCosine`. Source: official code of
    InfoPro, HPFF, MAN, MAN++, MLAAN and AugLocal (`imagenet_DDP.py`).
    """

    def lr(self, base: float, *, epoch: int, epochs: int, step: int, steps: int) -> float:
        return base * (1 + cos(pi * (epoch - 1) / epochs)) / 2


@dataclass(frozen=True, kw_only=True)
class EpochDecay(Schedule):
    """The base learning rate, multiplied by a factor at the start of some epochs.

    The defaults are those of DGL's official code for CIFAR-10 (50 epochs, `cifar_dgl.py`).

    Args:
        epochs: from 1; the factor holds from each on.
        factor: above 0.
    """

    epochs: tuple[int, ...] = (16, 31, 46)
    factor: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_decay("EpochDecay", "epochs", self.epochs, first=1, factor=self.factor)

    def lr(self, base: float, *, epoch: int, epochs: int, step: int, steps: int) -> float:
        return base * self.factor ** sum(epoch >= at for at in self.epochs)


@dataclass(frozen=True, kw_only=True)
class StepDecay(Schedule):
    """The base learning rate, multiplied by a factor after some numbers of steps.

    The defaults are those of MAN++'s official code for COCO (90,000 steps, `train_coco.py`).

    Args:
        after: numbers of steps since the start of training, over all epochs.
        factor: above 0.
    """

    after: tuple[int, ...] = (60_000, 80_000)
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_decay("StepDecay", "after", self.after, first=0, factor=self.factor)

    def lr(self, base: float, *, epoch: int, epochs: int, step: int, steps: int) -> float:
        done = (epoch - 1) * steps + step
        return base * self.factor ** sum(done >= at for at in self.after)


def _refuse_decay(schedule: str, name: str, marks: tuple[int, ...], *, first: int, factor: float) -> None:
    if any(at < first for at in marks):
        raise LocalLearnError(f"{schedule}: {name}={marks!r}: give whole numbers from {first}.")
    if not 0 < factor < inf:
        raise LocalLearnError(f"{schedule}: factor={factor} must be above 0 and finite.")


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The base learning rate throughout."""

    def lr(self, base: float, *, epoch: int, epochs: int, step: int, steps: int) -> float:
        return base

"""Settings of training a network under a rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from locallearn._engine.local_net import LocalNet
from locallearn._engine.stepper import ModuleStepper, Stepper
from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import there_are
from locallearn.training.averaging import WeightAverage
from locallearn.training.schedules import Cosine, Schedule
from locallearn.training.settings.loop import LoopSettings


@dataclass(frozen=True, kw_only=True)
class FitSettings(LoopSettings):
    """How a network is trained, whatever its rule.

    Args:
        schedule: how the learning rate moves.
        accumulate: number of micro-batches in a batch; gradients are summed, batch statistics are each micro-batch's.
        step: "together" steps all modules after the last backward pass, as in the papers; "module" steps each module
            as soon as its gradient is complete and frees the gradient: same weights, less memory.
        ema: decay of a moving average of the backbone's weights, such as 0.999, with which it is evaluated and
            exported; takes the memory of these weights once more. None by default.
        module_lr: factors of the learning rate, from the first local module with its auxiliary networks to the last:
            one for each, or a few, as in [2,1], between which the others lie on straight lines. By default all are 1.
        clip_norm: largest norm of the whole gradient.
        clip_module_norm: largest norm of the gradient of one local module and its auxiliary networks.
        compile: compile each local module and auxiliary network with torch.compile.
        cuda_graphs: experimental, not yet measured on a GPU: capture the whole step as a CUDA graph and replay it; that
            saves small networks the time of kernel launches.
        eval_heads: evaluate every module's auxiliary head too.
        early_stopping: epochs without a better validation accuracy after which training ends; it needs validation
            images.
    """

    schedule: Schedule = field(default_factory=Cosine)
    accumulate: int = 1
    step: Literal["together", "module"] = "together"
    ema: float | None = None
    module_lr: tuple[float, ...] = ()
    clip_norm: float | None = None
    clip_module_norm: float | None = None
    compile: bool = False
    cuda_graphs: bool = False
    eval_heads: bool = False
    early_stopping: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_below(1, "accumulate", "early_stopping")
        for name in ("clip_norm", "clip_module_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise LocalLearnError(f"{name}={value} must be larger than 0.")
        if any(factor < 0 for factor in self.module_lr):
            raise LocalLearnError(f"module_lr={list(self.module_lr)} must not be negative.")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise LocalLearnError(f"ema={self.ema} must be at least 0 and below 1, such as 0.999.")
        if self.step == "module" and self.clip_norm is not None:
            raise LocalLearnError(
                "clip_norm needs the whole gradient, but step=module frees each module's at once: use clip_module_norm."
            )
        if self.cuda_graphs and self.accumulate > 1:
            raise LocalLearnError("cuda_graphs captures one batch at a time: use accumulate=1, or leave it out.")

    def make_stepper(self, net: LocalNet) -> Stepper:
        """The optimizers of a network, with the moment at which they step."""
        modules: Any = {"clip_module_norm": self.clip_module_norm, "lr_factors": self._lr_factors(len(net.partition))}
        if self.step == "module":
            return ModuleStepper(net, self.optimizer.make, **modules)
        return Stepper(net, self.optimizer.make, clip_norm=self.clip_norm, **modules)

    @property
    def step_options(self) -> dict[str, Any]:
        """Keyword arguments of `locallearn.cost`'s `cost`, `predict` and `peak_memory`."""
        return {"accumulate": self.accumulate, "make_stepper": self.make_stepper, "autocast": self.autocast}

    def refuse_misfit(self, net: LocalNet, *, steps: int) -> None:
        """Refuse settings that do not fit the network or its number of steps, before a run begins.

        Args:
            net: the whole network.
            steps: number of steps in an epoch.

        Raises:
            LocalLearnError: names the setting.
        """
        self._lr_factors(len(net.partition))
        self.lr(epoch=self.epochs, step=steps - 1, steps=steps)

    def _lr_factors(self, modules: int) -> list[float]:
        """The factor of the learning rate for each local module, or nothing."""
        given = len(self.module_lr)
        if given > modules:
            raise LocalLearnError(f"module_lr has {given} factors, but {there_are(modules, 'local module')}.")
        places = [module * (given - 1) / (modules - 1) if modules > 1 else 0.0 for module in range(modules)]
        return np.interp(places, range(given), self.module_lr).tolist() if given else []

    def average_of(self, net: LocalNet) -> WeightAverage | None:
        return None if self.ema is None else WeightAverage(net, self.ema)

    def lr(self, *, epoch: int, step: int, steps: int) -> float:
        return self.schedule.lr(self.optimizer.lr, epoch=epoch, epochs=self.epochs, step=step, steps=steps)

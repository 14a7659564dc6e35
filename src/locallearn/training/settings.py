"""Settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._engine.stepper import ModuleStepper, Stepper
from locallearn._utils.errors import LocalLearnError, refuse_unknown
from locallearn.training.optimizers import SGD, OptimizerSettings
from locallearn.training.schedules import Cosine, Schedule


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a network is trained, whatever its rule.

    Args:
        epochs: passes over the training split.
        optimizer: the optimizer and its base learning rate.
        schedule: how the learning rate moves.
        accumulate: number of micro-batches a batch is cut into; gradients are their sum, batch statistics their own.
        step: "together": all modules are stepped after the last backward, as in the papers; "module": each module as
            soon as its gradient is complete, which is then freed: same weights, less memory.
        clip_norm: largest norm of the whole gradient.
        clip_module_norm: largest norm of the gradient of one local module and its auxiliary networks.
        precision: "fp32", or "bf16" for mixed precision with bfloat16.
        compile: compile each local module and auxiliary network with torch.compile.
        cuda_graphs: experimental, not measured on a GPU yet: capture the whole step as a CUDA graph and replay it; it
            saves small networks the time of launches.
        eval_heads: evaluate every module's own head too.
        checkpoint_every: optimizer steps between checkpoints within an epoch; there is always one after each epoch.
    """

    epochs: int = 10
    optimizer: OptimizerSettings = field(default_factory=SGD)
    schedule: Schedule = field(default_factory=Cosine)
    accumulate: int = 1
    step: Literal["together", "module"] = "together"
    clip_norm: float | None = None
    clip_module_norm: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    cuda_graphs: bool = False
    eval_heads: bool = False
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        refuse_unknown("step", self.step, ("together", "module"))
        refuse_unknown("precision", self.precision, ("fp32", "bf16"))
        for name in ("epochs", "accumulate", "checkpoint_every", "clip_norm", "clip_module_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise LocalLearnError(f"{name}={value} must be larger than 0.")
        if self.step == "module" and self.clip_norm is not None:
            raise LocalLearnError(
                "clip_norm needs the whole gradient, but step=module frees each module's at once: use clip_module_norm."
            )
        if self.cuda_graphs and self.accumulate > 1:
            raise LocalLearnError("cuda_graphs captures one batch at a time: use accumulate=1, or leave it out.")

    def make_stepper(self, net: LocalNet) -> Stepper:
        """The optimizers of a network, and when they step."""
        make, clip = self.optimizer.make, self.clip_module_norm
        if self.step == "module":
            return ModuleStepper(net, make, clip_module_norm=clip)
        return Stepper(net, make, clip_norm=self.clip_norm, clip_module_norm=clip)

    @property
    def autocast(self) -> torch.dtype | None:
        """Type of mixed precision."""
        return torch.bfloat16 if self.precision == "bf16" else None

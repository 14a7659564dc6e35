"""When optimizers step: all modules together after the last backward, or each as soon as its gradient is complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from locallearn._engine.local_net import LocalNet
from locallearn._utils.errors import LocalLearnError

MakeOptimizer = Callable[[Sequence[nn.Parameter]], Optimizer]
"""From parameters to an optimizer over them."""


class Stepper:
    """Steps all modules together: the papers' way.

    Args:
        net: the network; parameters that are frozen at this moment get no optimizer.
        make_optimizer: makes the optimizer over all its parameters.
        clip_norm: largest norm of the whole gradient, or None; refused where a process has some of the modules alone.
        clip_module_norm: largest norm of one local module's gradient with its auxiliary networks', or None.
        lr_factors: factor of the learning rate for each local module and its auxiliary networks; by default 1 for all.
    """

    def __init__(
        self,
        net: LocalNet,
        make_optimizer: MakeOptimizer,
        *,
        clip_norm: float | None = None,
        clip_module_norm: float | None = None,
        lr_factors: Sequence[float] = (),
    ) -> None:
        if clip_norm is not None and len(net.part) < len(net.partition):
            raise LocalLearnError(
                f"clip_norm={clip_norm} is the norm over all local modules, of which this process has"
                f" {len(net.part)} of {len(net.partition)}: clip each module by clip_module_norm."
            )
        self.net = net
        self.clip_norm, self.clip_module_norm = clip_norm, clip_module_norm
        self.lr_factors = lr_factors
        groups = self.groups()
        self.optimizers = [make_optimizer(group) for group in groups if group]
        factors = lr_factors or [1.0] * len(groups)
        chosen = [factor for factor, group in zip(factors, groups, strict=True) if group]
        shares = _shares_of_lr(self.optimizers)
        self._factors = [[factor * share for share in own] for factor, own in zip(chosen, shares, strict=True)]

    def groups(self) -> list[list[nn.Parameter]]:
        """Parameters of each optimizer."""
        return self._groups_of_modules() if self.lr_factors else [_trainable(self.net.parameters())]

    def _groups_of_modules(self) -> list[list[nn.Parameter]]:
        return [_trainable(self.net.parameters_of(module)) for module in range(len(self.net.partition))]

    @property
    def on_complete(self) -> Callable[[int], None] | None:
        """The callback for `net.backward` in the last micro-batch."""
        return None if self.clip_module_norm is None else self._clip

    def _clip(self, module: int) -> None:
        if self.clip_module_norm is not None:
            clip_grad_norm_(self.net.parameters_of(module), self.clip_module_norm)

    def finish(self) -> None:
        """Step; call it after the last `net.backward` of the step."""
        if self.clip_norm is not None:
            clip_grad_norm_(self.net.parameters(), self.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, to which the factors of modules and of an optimizer's own groups are applied."""
        for factors, optimizer in zip(self._factors, self.optimizers, strict=True):
            for factor, group in zip(factors, optimizer.param_groups, strict=True):
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(factor * lr)
                else:
                    group["lr"] = factor * lr

    def make_capturable(self, device: torch.device) -> None:
        """Put the learning rate into a tensor on the device, where captured steps read it and `set_lr` changes it."""
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
            if "capturable" in group:
                group["capturable"] = True


class ModuleStepper(Stepper):
    """Steps each module as soon as its gradient is complete, and frees the gradient: same weights, less memory.

    The norm of the whole gradient is never known, so only modules can be clipped.
    """

    def __init__(
        self,
        net: LocalNet,
        make_optimizer: MakeOptimizer,
        *,
        clip_module_norm: float | None = None,
        lr_factors: Sequence[float] = (),
    ) -> None:
        super().__init__(net, make_optimizer, clip_module_norm=clip_module_norm, lr_factors=lr_factors)
        self._of_module = dict(zip((i for i, group in enumerate(self.groups()) if group), self.optimizers, strict=True))

    def groups(self) -> list[list[nn.Parameter]]:
        return self._groups_of_modules()

    @property
    def on_complete(self) -> Callable[[int], None]:
        return self._step

    def _step(self, module: int) -> None:
        self._clip(module)
        if optimizer := self._of_module.get(module):
            optimizer.step()
            optimizer.zero_grad()

    def finish(self) -> None:
        pass


def _shares_of_lr(optimizers: Sequence[Optimizer]) -> list[list[float]]:
    """The learning rate of each group of each optimizer, as a share of what the optimizer was made with.

    Raises:
        LocalLearnError: groups have different ones, none of which is that.
    """
    rates = [[float(group["lr"]) for group in optimizer.param_groups] for optimizer in optimizers]
    different = {rate for own in rates for rate in own}
    if len(different) <= 1:
        return [[1.0] * len(own) for own in rates]
    base = float(optimizers[0].defaults["lr"])
    if base not in different or not base:
        raise LocalLearnError(
            f"the optimizer's groups have the learning rates {sorted(different)}, and it was made with {base:g}, which"
            " is that of no group: schedules change the rates in proportion to it. Give it the rate of the settings, as"
            " in SGD(groups, lr=self.lr)."
        )
    return [[rate / base for rate in own] for own in rates]


def _trainable(parameters: Any) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]

"""What a training step costs: parameters, multiply-accumulates and peak memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._planning.prediction import MakeStepper, PeakMemory, nesterov_sgd, peak_memory
from locallearn.cost.macs import ModuleMacs, forward_macs, step_macs


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of training one network by one rule.

    Attributes:
        backbone_parameters, auxiliary_parameters: numbers of parameters.
        module_names: first and last layer of each local module.
        module_macs: multiply-accumulates of one image forward, for each local module.
        step_macs: multiply-accumulates of one training step, forward and backward, of everything that runs.
        peak: peak bytes of a step.
        batch: images in a step.
    """

    backbone_parameters: int
    auxiliary_parameters: int
    module_names: tuple[str, ...]
    module_macs: tuple[ModuleMacs, ...]
    step_macs: int
    peak: PeakMemory
    batch: int

    @property
    def forward_macs(self) -> int:
        """Multiply-accumulates of one image forward: backbone and task heads, without decoders (AugLocal, Table 7)."""
        return sum(macs.backbone + macs.task_heads for macs in self.module_macs)


def cost(
    net: LocalNet, *, batch: int, make_stepper: MakeStepper = nesterov_sgd, autocast: torch.dtype | None = None
) -> Cost:
    """Count the cost of a training step without training, on any device; the network is not changed.

    Args:
        net: from `localize`.
        batch: images in a step.
        make_stepper: the optimizer, and when it steps; by default Nesterov SGD over all modules together.
        autocast: dtype of mixed precision, or None.
    """
    ends = [(net.partition.layers(m)[0], net.partition.ends[m]) for m in range(len(net.partition))]
    names = net.chain.names
    return Cost(
        backbone_parameters=sum(p.numel() for p in net.model.parameters()),
        auxiliary_parameters=sum(p.numel() for p in net.auxiliary.parameters()),
        module_names=tuple(names[a] if a == b else f"{names[a]} ... {names[b]}" for a, b in ends),
        module_macs=tuple(forward_macs(net)),
        step_macs=step_macs(net, batch),
        peak=peak_memory(net, batch, make_stepper=make_stepper, autocast=autocast),
        batch=batch,
    )

"""What a training step costs: parameters, multiply-accumulates and peak memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._planning.prediction import MakeStepper, PeakMemory, nesterov_sgd, predict, without_data
from locallearn._torch.op_counter import Convention, Work, counted_macs

_aten = torch.ops.aten

CONVOLUTION_AND_LINEAR: Convention = {}
"""Counts a multiply-accumulate of convolutions and linear layers as one, and nothing else."""


def _normalisation(shape: list[int], *_: Any, **__: Any) -> int:
    return 2 * 2 * prod(shape)


def _pooling(shape: list[int], *_: Any, **__: Any) -> int:
    return 2 * prod(shape)


FVCORE: Convention = {
    _aten.native_batch_norm: _normalisation,
    _aten._native_batch_norm_legit_no_training: _normalisation,
    _aten.cudnn_batch_norm: _normalisation,
    _aten.mean: _pooling,
    _aten._adaptive_avg_pool2d: _pooling,
}
"""The convention of AugLocal's Table 11: two more per element of a batch normalisation, one per element pooled."""


@dataclass(frozen=True, kw_only=True)
class ModuleMacs:
    """Multiply-accumulates of one image forward in one local module.

    Attributes:
        backbone: the backbone's layers; in the last module also its classifier.
        task_heads: the parts of auxiliary networks that compute logits.
        others: all other parts of auxiliary networks, such as decoders.
    """

    backbone: int
    task_heads: int
    others: int


def forward_macs(net: LocalNet, convention: Convention = CONVOLUTION_AND_LINEAR) -> list[ModuleMacs]:
    """Multiply-accumulates of one image forward, for each local module."""
    counts = []
    with without_data(net, 1) as (net, images, labels), torch.no_grad():
        features = images
        for index, module in enumerate(net.eval().local_modules):
            backbone, features = counted_macs(module, features, convention=convention)
            task_heads = others = 0
            networks = {id(objective.auxiliary): objective for objective in net.objectives_of(index)}
            for objective in networks.values():
                everything, _ = counted_macs(objective.loss, features, images, labels, convention=convention)
                logits, _ = counted_macs(objective.logits, features, convention=convention)
                task_heads += logits
                others += everything - logits
            if index == len(net.partition) - 1:
                backbone, task_heads = backbone + task_heads, 0
            counts.append(ModuleMacs(backbone=backbone, task_heads=task_heads, others=others))
    return counts


def step_macs(net: LocalNet, batch: int) -> int:
    """Multiply-accumulates of one training step, forward and backward, of everything that runs."""
    with without_data(net, batch) as (net, images, labels):
        step = net.step(images, labels)
        with Work() as work:
            step.run()
    return work.macs


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
    net: LocalNet,
    *,
    batch: int,
    accumulate: int = 1,
    make_stepper: MakeStepper = nesterov_sgd,
    autocast: torch.dtype | None = None,
) -> Cost:
    """Count the cost of a training step without training, on any device; the network is not changed.

    Args:
        net: from `localize`.
        batch: images in a step.
        accumulate: number of micro-batches in it.
        make_stepper: the optimizer, and when it steps; by default Nesterov SGD over all modules together.
        autocast: dtype of mixed precision, or None.
    """
    ends = [(net.partition.layers(m)[0], net.partition.ends[m]) for m in range(len(net.partition))]
    names = net.chain.names
    step = predict(net, batch, accumulate=accumulate, make_stepper=make_stepper, autocast=autocast)
    return Cost(
        backbone_parameters=sum(p.numel() for p in net.model.parameters()),
        auxiliary_parameters=sum(p.numel() for p in net.auxiliary.parameters()),
        module_names=tuple(names[a] if a == b else f"{names[a]} ... {names[b]}" for a, b in ends),
        module_macs=tuple(forward_macs(net)),
        step_macs=step.macs,
        peak=step.peak,
        batch=batch,
    )

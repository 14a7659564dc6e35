"""Multiply-accumulates of one image forward, module by module, and of a whole training step."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from locallearn._engine.local_net import LocalNet
from locallearn._planning.prediction import without_data
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

"""Training steps that processes share, and the same steps in one process."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cache, partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import locallearn as ll
from locallearn import parallel
from locallearn._engine.recompute_plan import Memory

RULES: dict[str, ll.Rule] = {
    "BP": ll.BP(),
    "DGL": ll.DGL(hidden=1),
    "InfoPro": ll.InfoPro(),
    "AugLocal": ll.AugLocal(depth=2),
    "HiLo": ll.HiLo(ll.Pooling()),
    "MAN": ll.MAN(ll.DGL(hidden=1)),
    "MLAAN": ll.MLAAN(),
    "HPFF of MAN": ll.HPFF(ll.MAN(ll.AugLocal(depth=2)), fidelity="paper"),
}
"""Rules that differ in mechanism and whose loss is a mean over images."""

VARIANTS: dict[str, ll.Rule] = {
    "Checkpoint": ll.Checkpoint(),
    "Pooling": ll.Pooling(),
    "DGL.original": ll.DGL.original(),
    "AugLocal paper": ll.AugLocal(depth=2, fidelity="paper"),
    "SequentialAugLocal": ll.SequentialAugLocal(depth=2),
    "RepetitiveAugLocal": ll.RepetitiveAugLocal(depth=2, downsample=True),
    "ConvolutionalAugLocal": ll.ConvolutionalAugLocal(depth=2),
    "ByStage": ll.ByStage(rules=(ll.DGL(hidden=1), ll.Pooling())),
    "InfoProLoss": ll.InfoProLoss(ll.DGL(hidden=1)),
    "PFF": ll.PFF(ll.InfoPro()),
    "PFF paper": ll.PFF(ll.DGL(hidden=1), fidelity="paper"),
    "HPFF": ll.HPFF(ll.InfoPro.published("hpff")),
    "MANPP": ll.MANPP(ll.Pooling()),
    "MLM": ll.MLM(ll.Pooling()),
    "LAM": ll.LAM(),
    "InfoProLoss of MLM": ll.InfoProLoss(ll.MLM(ll.Pooling())),
}
"""The others, for a slow test."""

SYNCHRONISED = ("DGL", "AugLocal", "HiLo", "MAN")
"""Rules that also run with batch normalisation over all images."""
SYNCHRONISED_VARIANTS = ("BP", "Checkpoint", "HPFF", "MLAAN", "HPFF of MAN")

_EVERY = RULES | VARIANTS


@cache
def model() -> nn.Module:
    """A network of five layers, for images (3, 12, 12)."""
    torch.manual_seed(0)
    widths = (3, 6, 6, 8, 8, 8)
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4))


@cache
def _localized(rule: ll.Rule, memory: Memory) -> ll.LocalNet:
    net = ll.localize(copy.deepcopy(model()), rule, input_shape=(3, 12, 12), memory=memory)
    _ = net.needs_several  # computed once for all copies
    return net


def localized(rule: ll.Rule, *, memory: Memory = "fast") -> ll.LocalNet:
    """Such a network, each layer a module where the rule allows it; made once and copied."""
    return copy.deepcopy(_localized(rule, memory))


def made(rule: ll.Rule) -> ll.LocalNet:
    """Such a network in evaluation mode: then batch normalisation does not look at the batch."""
    return localized(rule).double().eval()


def batch(seed: int = 1, images: int = 7) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, 12, 12, dtype=torch.float64, generator=draw), torch.arange(images) % 4


def part_of(tensors: tuple[Tensor, Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """Four of seven images for the first process, three for the second."""
    images, labels = tensors
    return images[rank::2], labels[rank::2]


def after_steps(rule: ll.Rule, rank: int | None, steps: int = 2, *, training: bool = False) -> dict[str, Any]:
    """Losses and state after some steps, by a process of two, or in one process (None)."""
    net = made(rule).train(training)
    if rank is not None:
        parallel.data(net, synchronise_statistics=training)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step in range(steps):
        given = batch(step)
        losses.append(net.backward(*(given if rank is None else part_of(given, rank))))
        optimizer.step()
        optimizer.zero_grad()
    return {"losses": torch.stack(losses), "state": net.state_dict()}


def each_rule(rank: int) -> dict[str, Any]:
    """What two processes have after their steps by each rule; and what they refuse."""
    results = stepped_by(RULES, SYNCHRONISED, rank)
    results["accumulated"] = accumulated(rank)
    results["module by module"] = module_by_module(rank)
    results["refused"] = refused(rank)
    results["branches"] = branching(parallel.data(branched()), batch()[0].shape[0], part_of(batch(), rank), rank)
    results["long"] = after_steps(RULES["MAN"], rank, steps=50)
    return results


def each_variant(rank: int) -> dict[str, Any]:
    """What two processes have after their steps by each of the other rules."""
    return stepped_by(VARIANTS, SYNCHRONISED_VARIANTS, rank)


def stepped_by(rules: Iterable[str], synchronised: Iterable[str], rank: int | None) -> dict[str, Any]:
    """Losses and states by each rule, with the statistics of a part of the batch and of the whole one."""
    return {
        **{name: after_steps(_EVERY[name], rank) for name in rules},
        "synchronised": {name: after_steps(_EVERY[name], rank, training=True) for name in synchronised},
    }


def accumulated(rank: int | None) -> dict[str, Tensor]:
    """Gradients of a batch in two micro-batches of unequal size."""
    net = made(RULES["HiLo"])
    if rank is not None:
        parallel.data(net)
    images, labels = batch() if rank is None else part_of(batch(), rank)
    for begin, end, final in ((0, 1, False), (1, len(images), True)):
        net.backward(images[begin:end], labels[begin:end], scale=(end - begin) / len(images), final=final)
    return {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}


def module_by_module(rank: int | None) -> dict[str, Tensor]:
    """Weights after steps in which each module is stepped when its gradients are complete."""
    from locallearn.training import ModuleStepper

    net = made(RULES["MAN"])
    if rank is not None:
        parallel.data(net)
    stepper = ModuleStepper(net, partial(torch.optim.SGD, lr=0.05, momentum=0.9))
    for step in range(3):
        given = batch(step)
        net.backward(*(given if rank is None else part_of(given, rank)), on_complete=stepper.on_complete)
        stepper.finish()
    return net.state_dict()


class Branches(nn.Module):
    """Three convolutions, of which one runs."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen = 0
        self.branches = nn.ModuleList(nn.Conv2d(3, 4, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.branches[self.chosen](x)


def branched() -> ll.LocalNet:
    torch.manual_seed(0)
    model = nn.Sequential(Branches(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)).double()
    return ll.localize(model, ll.BP(), input_shape=(3, 12, 12))


def branching(net: ll.LocalNet, images: int, part: tuple[Tensor, Tensor], chosen: int) -> dict[str, Tensor | None]:
    """Gradients of a part of a batch, with a branch of its own."""
    block = next(module for module in net.modules() if isinstance(module, Branches))
    block.chosen = chosen
    alone = len(part[0]) / images if net.gradient_sharing is None else 1.0
    net.backward(*part, scale=alone)
    return {name: parameter.grad for name, parameter in net.model.named_parameters()}


def refused(rank: int) -> str:
    net = made(RULES["DGL" if rank else "BP"])
    with pytest.raises(ll.LocalLearnError) as error:
        parallel.data(net)
    dist.barrier()
    return str(error.value)

"""Training steps that processes share, and the same steps in one process."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import locallearn as ll
from locallearn import parallel

RULES: dict[str, ll.Rule] = {
    "BP": ll.BP(),
    "Checkpoint": ll.Checkpoint(),
    "Pooling": ll.Pooling(),
    "DGL": ll.DGL(hidden=1),
    "DGL.original": ll.DGL.original(),
    "InfoPro": ll.InfoPro(),
    "AugLocal": ll.AugLocal(depth=2),
    "AugLocal paper": ll.AugLocal(depth=2, fidelity="paper"),
    "SequentialAugLocal": ll.SequentialAugLocal(depth=2),
    "RepetitiveAugLocal": ll.RepetitiveAugLocal(depth=2, downsample=True),
    "ConvolutionalAugLocal": ll.ConvolutionalAugLocal(depth=2),
    "ByStage": ll.ByStage(rules=(ll.DGL(hidden=1), ll.Pooling())),
    "InfoProLoss": ll.InfoProLoss(ll.DGL(hidden=1)),
    "HiLo": ll.HiLo(ll.Pooling()),
    "PFF": ll.PFF(ll.InfoPro()),
    "PFF paper": ll.PFF(ll.DGL(hidden=1), fidelity="paper"),
    "HPFF": ll.HPFF(ll.InfoPro.published("hpff")),
    "MAN": ll.MAN(ll.DGL(hidden=1)),
    "MANPP": ll.MANPP(ll.Pooling()),
    "MLM": ll.MLM(ll.Pooling()),
    "LAM": ll.LAM(),
    "MLAAN": ll.MLAAN(),
    "HPFF of MAN": ll.HPFF(ll.MAN(ll.AugLocal(depth=2)), fidelity="paper"),
    "InfoProLoss of MLM": ll.InfoProLoss(ll.MLM(ll.Pooling())),
}
"""Rules whose loss is a mean over images."""

SYNCHRONISED = ("BP", "Checkpoint", "DGL", "AugLocal", "HPFF", "MAN", "MLAAN", "HPFF of MAN")
"""Those that also run with batch normalisation over all images."""


def made(rule: ll.Rule) -> ll.LocalNet:
    """Five layers, in evaluation mode: then batch normalisation does not look at the batch."""
    torch.manual_seed(0)
    widths = (3, 6, 6, 8, 8, 8)
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    model = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4))
    return ll.localize(model.double(), rule, input_shape=(3, 16, 16)).eval()


def batch(seed: int = 1, images: int = 7) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, 16, 16, dtype=torch.float64, generator=draw), torch.arange(images) % 4


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
    results: dict[str, Any] = {name: after_steps(rule, rank) for name, rule in RULES.items()}
    results["synchronised"] = {name: after_steps(RULES[name], rank, training=True) for name in SYNCHRONISED}
    results["accumulated"] = accumulated(rank)
    results["module by module"] = module_by_module(rank)
    results["refused"] = refused(rank)
    results["long"] = after_steps(ll.MAN(ll.DGL(hidden=1)), rank, steps=50)
    return results


def accumulated(rank: int | None) -> dict[str, Tensor]:
    """Gradients of a batch in two micro-batches of unequal size."""
    net = made(ll.HiLo(ll.Pooling()))
    if rank is not None:
        parallel.data(net)
    images, labels = batch() if rank is None else part_of(batch(), rank)
    for begin, end, final in ((0, 1, False), (1, len(images), True)):
        net.backward(images[begin:end], labels[begin:end], scale=(end - begin) / len(images), final=final)
    return {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}


def module_by_module(rank: int | None) -> dict[str, Tensor]:
    """Weights after steps in which each module is stepped when its gradients are complete."""
    from locallearn.training import ModuleStepper

    net = made(ll.MAN(ll.DGL(hidden=1)))
    if rank is not None:
        parallel.data(net)
    stepper = ModuleStepper(net, partial(torch.optim.SGD, lr=0.05, momentum=0.9))
    for step in range(3):
        given = batch(step)
        net.backward(*(given if rank is None else part_of(given, rank)), on_complete=stepper.on_complete)
        stepper.finish()
    return net.state_dict()


def refused(rank: int) -> str:
    net = made(ll.DGL(hidden=1 + rank))
    with pytest.raises(ll.LocalLearnError) as error:
        parallel.data(net)
    dist.barrier()
    return str(error.value)

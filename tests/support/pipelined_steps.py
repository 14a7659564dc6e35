"""Training steps through a pipeline of processes, and the same steps in one process."""

from __future__ import annotations

import copy
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import locallearn as ll
from locallearn import parallel
from locallearn.training import ModuleStepper, Stepper

RULES: dict[str, ll.Rule] = {
    "BP": ll.BP(),
    "Checkpoint": ll.Checkpoint(),
    "DGL": ll.DGL(hidden=1),
    "PredSim": ll.PredSim(),
    "InfoPro": ll.InfoPro(),
    "InfoPro contrastive": ll.InfoPro(task_loss="contrastive"),
    "AugLocal": ll.AugLocal(depth=2),
    "PFF": ll.PFF(ll.InfoPro()),
    "HiLo": ll.HiLo(ll.Pooling()),
    "HiLo paper": ll.HiLo(ll.Pooling(), span=3, fidelity="paper"),
    "HPFF": ll.HPFF(ll.InfoPro.published("hpff")),
    "MAN": ll.MAN(ll.DGL(hidden=1)),
    "MAN paper": ll.MAN(ll.DGL(hidden=1), fidelity="paper"),
    "MANPP": ll.MANPP(ll.Pooling()),
    "LAM": ll.LAM(),
    "LAM of InfoPro": ll.LAM(ll.InfoPro()),
    "MLAAN": ll.MLAAN(),
    "HPFF of MAN": ll.HPFF(ll.MAN(ll.AugLocal(depth=2)), fidelity="paper"),
}


@cache
def _model() -> nn.Module:
    torch.manual_seed(0)
    widths = (3, 6, 6, 8, 8, 8)
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4))


@cache
def _made(name: str) -> ll.LocalNet:
    return ll.localize(copy.deepcopy(_model()), RULES[name], input_shape=(3, 12, 12))


def made(name: str) -> ll.LocalNet:
    """Five layers, each a module."""
    return copy.deepcopy(_made(name))


def batch(seed: int, images: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, 12, 12, generator=draw), torch.arange(images) % 4


def train(net: ll.LocalNet, steps: int = 4) -> dict[str, Any]:
    """Losses, and the whole state after some steps; the last batch is smaller."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    losses = []
    for step in range(steps):
        losses.append(net.backward(*batch(step, 6 if step < steps - 1 else 3)))
        optimizer.step()
        optimizer.zero_grad()
    return {"losses": torch.stack(losses), "state": net.state_dict(), "logits": net.eval()(batch(9, 2)[0])}

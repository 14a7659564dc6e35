"""What the examples of the papers share: options, the bundled digits, and a training loop."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

import locallearn as ll
from locallearn.cost import peak_memory
from locallearn.data import Feed, digits
from locallearn.training import evaluate

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long an example trains."""

    epochs: int
    images: int


def options(description: str | None) -> Options:
    """The options that every example has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=1438, help="training images, at most 1438")
    given = parser.parse_args()
    return Options(epochs=given.epochs, images=given.images)


def localized(rule: ll.Rule, modules: str | int = "all") -> ll.LocalNet:
    """ResNet-20 for the digits under a rule; equal first weights for every rule."""
    torch.manual_seed(0)
    return ll.localize(ll.models.resnet20(num_classes=10), rule, modules=modules, input_shape=(3, 16, 16))


def train(net: ll.LocalNet, given: Options) -> torch.Tensor:
    """Train by AdamW; returns the losses of the last step, one per objective."""
    batches = digits(Path("data")).limited(given.images).training(Feed(batch=BATCH), seed=0, drop_single=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    losses = torch.empty(0)
    for epoch in range(1, given.epochs + 1):
        for images, labels in batches.epoch(epoch):
            losses = net.backward(images, labels)
            optimizer.step()
            optimizer.zero_grad()
    return losses


def report(name: str, net: ll.LocalNet) -> None:
    """Print test accuracy, peak memory of a step and auxiliary parameters."""
    accuracy = evaluate(net, digits(Path("data")).testing(Feed(batch=BATCH))).accuracy
    peak = peak_memory(net, BATCH).activations / 2**20
    auxiliary = sum(parameter.numel() for parameter in net.auxiliary.parameters())
    print(f"{name:34} test accuracy {accuracy:6.1%}   peak {peak:5.1f} MiB   auxiliary parameters {auxiliary:>9,}")

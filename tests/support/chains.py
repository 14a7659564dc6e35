"""A network as a chain, and whether the chain computes what the network computes."""

from __future__ import annotations

import copy

import torch
from torch import nn

import locallearn as ll


def chain(model: nn.Module, layers=None, shape=(3, 32, 32)) -> ll.TracedChain:
    return ll.localize(model, ll.BP(), layers=layers, input_shape=shape).chain


def assert_same_as(model: nn.Module, found: ll.TracedChain, shape=(3, 32, 32)) -> None:
    """In evaluation, and in training with equal random numbers."""
    images = torch.randn(2, *shape)
    for training in (False, True):
        one, other = copy.deepcopy((model.train(training), (found.layers, found.classifier)))
        layers, classifier = other
        outputs = []
        for run in (one, nn.Sequential(*layers, classifier).train(training)):
            torch.manual_seed(0)
            outputs.append(run(images))
        assert torch.equal(*outputs), f"training={training}"

"""Trained parameters of auxiliary networks, summed over whole ImageNet networks, as in the official code."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from locallearn import models
from locallearn._chain.chain import TracedChain
from locallearn._chain.discovery import chain_of
from locallearn._chain.partition import partition
from locallearn._chain.trace import trace
from locallearn._objectives.sites import Sites

IMAGE = (3, 224, 224)


@cache
def chain(network: str) -> TracedChain:
    with torch.random.fork_rng(devices=[]):
        return trace(chain_of(getattr(models, network)(), IMAGE), IMAGE)


def numbers(network: str, split: str, rule: ll.Rule, cascades: bool) -> list[tuple[int, int]]:
    """For each module or cascade before the last: trained parameters of all, and of the network after copies alone."""
    sites = Sites(chain(network), partition(split, chain(network).names), F.cross_entropy, (0.5,) * 3, (0.25,) * 3)
    modules = len(sites.partition)
    found = []
    for span in rule.spans(modules):
        if (span.first != span.last) == cascades and span.last < modules - 1:
            auxiliary = rule.auxiliary(sites.site(span.first, span.last))
            found.append((size(auxiliary), size(getattr(auxiliary, "auxiliary", auxiliary))))
    return found


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "split", "independent", "cascade"),
    [("resnet34", "mlaan-17", 3_430_984, 13 * 513_000), ("resnet101", "mlaan-34", 29_982_000, 30 * 2_049_000)],
)
def test_heads_of_mlaan(network, split, independent, cascade):
    rule = ll.MLAAN(ll.ImageNetPooling(), fresh=True)
    assert sum(head for _, head in numbers(network, split, rule, cascades=False)) == independent
    assert sum(head for _, head in numbers(network, split, rule, cascades=True)) == cascade


@pytest.mark.parametrize("network", ["resnet101", "resnet152"])
@pytest.mark.parametrize(("split", "count", "total"), [("hpff-4", 2, 10_728_662), ("hpff-8", 6, 32_185_986)])
def test_decoders_and_heads_of_hpff(network, split, count, total):
    found = numbers(network, split, ll.HPFF.imagenet(), cascades=True)
    assert len(found) == count
    assert sum(every for every, _ in found) == total
    assert numbers(network, split, ll.HPFF.imagenet(), cascades=False) == []


@pytest.mark.parametrize("network", ["resnet101", "resnet152"])
@pytest.mark.parametrize(("split", "total"), [("man++-2", 5_030_323), ("man++-4", 17_999_385)])
def test_decoders_heads_and_biases_of_man_plus_plus(network, split, total):
    found = numbers(network, split, ll.MANPP(ll.ImageNetInfoPro()), cascades=False)
    scales = len(found)  # one number for each module
    assert sum(every for every, _ in found) - scales == total

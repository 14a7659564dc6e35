"""Normalisations and activations that are recomputed instead of saved."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from locallearn._recompute.activations import CHEAP, PRODUCTS, RecomputeActivations
from locallearn._torch.live_bytes import LiveBytes

LAYERS = {
    "ReLU": nn.ReLU(),
    "ReLU in place": nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6(),
    "ReLU6 in place": nn.ReLU6(inplace=True),
    "SiLU": nn.SiLU(),
    "SiLU in place": nn.SiLU(inplace=True),
    "GELU": nn.GELU(approximate="tanh"),
    "Hardswish": nn.Hardswish(),
    "Hardswish in place": nn.Hardswish(inplace=True),
    "LeakyReLU": nn.LeakyReLU(0.1),
    "Softplus": nn.Softplus(),
}


def saved_bytes_and_gradients(network: nn.Module, context) -> tuple[int, list[torch.Tensor]]:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    known = [*network.parameters(), *network.buffers(), images]
    with LiveBytes(known=known, parameters=network.parameters()) as live:
        with context:
            loss = network(images).square().mean()
        saved = live.now
    gradients = torch.autograd.grad(loss, [images, *network.parameters()])
    return saved, list(gradients)


@pytest.mark.parametrize("activation", LAYERS)
def test_activations_after_a_normalisation_are_recomputed(activation):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), LAYERS[activation], nn.Conv2d(8, 8, 3, padding=1)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)  # beyond six
    all_bytes, expected = saved_bytes_and_gradients(copy.deepcopy(network), torch.enable_grad())
    fewer_bytes, found = saved_bytes_and_gradients(copy.deepcopy(network), RecomputeActivations(CHEAP))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    if activation != "Softplus":  # no recomputation is known for it, so it is saved
        assert fewer_bytes <= all_bytes - 2 * 8 * 8 * 8 * 4


def test_convolutions_are_recomputed_three_in_a_row_at_most():
    def layers(count: int) -> nn.Sequential:
        norms = ((nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(count))
        return nn.Sequential(*(layer for of_one in norms for layer in of_one), nn.Conv2d(3, 3, 1))

    kept = []
    for count in (2, 3, 6, 8):  # and one more convolution, whose output the loss saves
        network = layers(count)
        _, expected = saved_bytes_and_gradients(network, torch.enable_grad())
        saved, found = saved_bytes_and_gradients(copy.deepcopy(network), RecomputeActivations(CHEAP | PRODUCTS))
        assert all(map(torch.equal, found, expected))
        kept.append(saved // (2 * 3 * 8 * 8 * 4))
    assert kept == [0, 1, 1, 2]


def test_an_overwritten_source_raises_pytorchs_own_error():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    norm, convolution = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
    with RecomputeActivations(CHEAP):
        source = x * 2
        result = convolution(F.relu(norm(source)))
    source.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()

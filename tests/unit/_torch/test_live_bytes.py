"""Live bytes, counted by storages."""

import pytest
import torch
from torch import nn

from locallearn._torch.live_bytes import LiveBytes
from locallearn._torch.private_api import fake_mode


def test_bytes_are_counted_until_their_tensor_is_freed():
    with LiveBytes(known=(), parameters=()) as live:
        first = torch.zeros(100)
        second = torch.zeros(50)
        assert live.now == 600
        del first
        assert live.now == 200
        assert second.sum() == 0
        assert live.take_peak() >= 600
        assert live.peak_activations == live.activations


def test_views_and_known_tensors_count_nothing():
    known = torch.zeros(100)
    with LiveBytes(known=[known], parameters=()) as live:
        known.view(10, 10).add_(1)
        made = torch.zeros(10)
        parts = made[:5], made.view(2, 5), made.detach()
        assert live.now == made.nbytes
        assert len(parts) == 3


def test_gradients_of_parameters_are_counted_apart():
    layer = nn.Linear(10, 10, bias=False)
    images = torch.randn(4, 10)
    with LiveBytes(known=[layer.weight, images], parameters=layer.parameters()) as live:
        layer(images).sum().backward()
        assert live.activations == 0
        assert live.now == layer.weight.nbytes
    assert live.peak >= live.peak_activations


@pytest.mark.parametrize("size", [1, 1000])
def test_fake_tensors_count_as_real_ones(size):
    def peak() -> int:
        with LiveBytes(known=(), parameters=()) as live:
            torch.zeros(size).relu().square().sum()
        return live.peak

    real = peak()
    with fake_mode():
        assert peak() == real

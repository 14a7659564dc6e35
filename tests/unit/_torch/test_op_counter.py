"""Multiply-accumulates, bytes and calls of a computation, and its predicted time."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from locallearn._torch.op_counter import SECONDS, Work, counted_macs


def test_macs_of_convolutions_and_linear_layers():
    images = torch.randn(2, 3, 8, 8)
    macs, result = counted_macs(nn.Conv2d(3, 4, 3, padding=1), images)
    assert macs == 2 * 4 * 8 * 8 * 3 * 3 * 3
    assert result.shape == (2, 4, 8, 8)
    assert counted_macs(nn.Linear(8, 5), torch.randn(7, 8))[0] == 7 * 8 * 5


def test_a_convention_counts_more_operators():
    def of_pooling(shape, *args, out_shape=None, **kwargs) -> int:
        return 2 * torch.Size(out_shape).numel()

    pool, images = nn.AdaptiveAvgPool2d(1), torch.randn(2, 3, 8, 8)
    assert counted_macs(pool, images)[0] == 0
    assert counted_macs(pool, images, convention={torch.ops.aten.mean: of_pooling})[0] == 2 * 3


def test_work_counts_calls_bytes_and_macs_by_kind():
    images, weight, matrix = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 1, 1), torch.randn(64, 5)
    with Work() as work:
        maps = F.conv2d(images, weight)
        maps.view(8, 64) @ matrix  # a view is free
    assert work.counts["mac of convolutions"] == 2 * 4 * 8 * 8 * 3
    assert work.counts["mac of matrix products"] == 8 * 64 * 5
    assert work.macs == 2 * 4 * 8 * 8 * 3 + 8 * 64 * 5
    assert work.counts["call"] == 2
    assert work.counts["byte"] == 4 * (images.numel() + weight.numel() + 2 * maps.numel() + matrix.numel() + 8 * 5)


@pytest.mark.parametrize("groups", [1, 4])
def test_the_backward_pass_of_a_grouped_convolution_costs_twice_its_forward_pass(groups):
    convolution = nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)
    images = torch.randn(2, 8, 6, 6, requires_grad=True)
    with Work() as forward:
        maps = convolution(images)
    with Work() as backward:
        maps.backward(torch.ones_like(maps))
    assert backward.macs == 2 * forward.macs


def test_the_predicted_time_is_the_sum_over_kinds():
    work = Work()
    work.counts.update({"call": 2, "byte": 10})
    assert work.seconds == 2 * SECONDS["call"] + 10 * SECONDS["byte"]

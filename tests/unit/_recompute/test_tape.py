"""Blocks that run again in the backward pass."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from locallearn._recompute.activations import RecomputeActivations
from locallearn._recompute.tape import checkpointing
from locallearn._torch.live_bytes import LiveBytes


class Overwriting(nn.Module):
    """A block that writes on its input, so that it cannot run again from it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(x.add_(1)))


def test_a_block_that_overwrites_its_input_cannot_run_again():
    block = Overwriting()
    leaf = torch.randn(2, 4, 6, 6, requires_grad=True)
    x = leaf * 1
    with checkpointing([block], RecomputeActivations) as tape:
        loss = block(x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation: a tensor of shape"):
        tape.unwind()


def blocks() -> nn.Sequential:
    torch.manual_seed(0)
    parts = (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)) for _ in range(3))
    return nn.Sequential(*parts)


def test_blocks_on_the_tape_give_the_gradients_of_a_plain_backward_pass():
    plain, recomputed = blocks(), blocks()
    images = torch.randn(2, 4, 6, 6)
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    torch.manual_seed(1)
    plain(inputs[0]).square().sum().backward()
    torch.manual_seed(1)
    with checkpointing(list(recomputed), nullcontext) as tape:
        loss = recomputed(inputs[1]).square().sum()
    loss.backward()
    tape.unwind()
    assert torch.equal(inputs[1].grad, inputs[0].grad)
    for a, b in zip(recomputed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for a, b in zip(recomputed.buffers(), plain.buffers(), strict=True):  # running statistics move once
        assert torch.equal(a, b)


def test_the_blocks_own_forward_is_restored():
    recomputed = blocks()
    with checkpointing(list(recomputed), nullcontext):
        assert all("forward" in vars(block) for block in recomputed)
    assert not any("forward" in vars(block) for block in recomputed)


def test_the_tape_stores_the_input_of_each_block_alone():
    recomputed, images = blocks(), torch.randn(8, 4, 6, 6, requires_grad=True)
    with LiveBytes(known=[*recomputed.parameters(), *recomputed.buffers(), images], parameters=()) as live:
        with checkpointing(list(recomputed), nullcontext):
            output = recomputed(images)
        assert live.now < 3.1 * output.nbytes  # the inputs of two blocks and the output; the first input is the images


def test_without_gradients_nothing_is_recorded():
    recomputed = blocks()
    with torch.no_grad(), checkpointing(list(recomputed), nullcontext) as tape:
        recomputed(torch.randn(2, 4, 6, 6))
    tape.unwind()
    assert all(parameter.grad is None for parameter in recomputed.parameters())

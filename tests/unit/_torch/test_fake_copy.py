"""Fake copies: parameters and buffers of any kind, without data."""

import torch
from torch import nn

from locallearn._torch.private_api import fake_copy, fake_mode, version_of


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        base = torch.zeros(4, 4)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.frozen = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)
        self.part = nn.Parameter(base[1:3])
        self.register_buffer("column", base[:, 1])
        self.register_buffer("sparse", torch.eye(2).to_sparse())
        self.register_buffer("trained", torch.ones(1, requires_grad=True))
        self.register_buffer("again", self.column)


def test_fake_tensors_are_like_the_real_ones():
    module = Mixed()
    module.conv.weight.grad = torch.ones_like(module.conv.weight)
    with fake_mode() as mode:
        copy = fake_copy(module, mode)
        real = dict(module.named_parameters()) | dict(module.named_buffers())
        fakes = dict(copy.named_parameters()) | dict(copy.named_buffers())
        assert fakes.keys() == real.keys()
        for name, fake in fakes.items():
            like = real[name]
            for attribute in ("shape", "dtype", "device", "layout", "requires_grad"):
                assert getattr(fake, attribute) == getattr(like, attribute), name
            assert isinstance(fake, nn.Parameter) == isinstance(like, nn.Parameter), name
            assert fake.grad is None
        assert copy.conv.weight.stride() == module.conv.weight.stride()
        assert copy.again is copy.column
        copy.frozen.add_(1)
        assert copy.conv(torch.empty(2, 3, 8, 8)).shape == (2, 4, 6, 6)
    assert torch.equal(module.frozen, torch.ones(2, dtype=torch.float64))
    assert version_of(module.frozen) == 0

"""Copies of later layers, in auxiliary networks: prefix tokens, and layers that are bound to one size."""

import pytest
import torch
from torch import Tensor, nn

import locallearn as ll

IMAGES = (3, 16, 16)
COPYING = [ll.AugLocal(depth=2), ll.MAN(ll.DGL()), ll.MLAAN(ll.DGL())]


class Biased(nn.Module):
    """A residual block with a bias for each token, as BEiT's relative positions; it takes this number alone."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 8)
        self.bias = nn.Parameter(torch.zeros(tokens, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x + self.bias)


class Tokens(nn.Module):
    """16 tokens after `prefix` tokens, and four blocks."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.patches, self.prefix = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, prefix, 8))
        self.blocks = nn.Sequential(*(Biased(16 + prefix) for _ in range(4)))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.prefix.expand(x.shape[0], -1, -1), x], 1)
        return self.fc(self.blocks(x)[:, 0])


@pytest.mark.parametrize("rule", COPYING, ids=str)
def test_blocks_that_need_prefix_tokens_are_copied(rule):
    torch.manual_seed(0)
    net = ll.localize(Tokens(prefix=2), rule, input_shape=IMAGES)
    assert net.chain.needs_prefix == (False, True, True, True, True)
    net.backward(torch.randn(4, *IMAGES), torch.arange(4))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_prefix_tokens_of_a_copy_are_the_mean_of_its_map():
    torch.manual_seed(0)
    net = ll.localize(Tokens(prefix=2), ll.MAN(ll.Pooling()), input_shape=IMAGES)
    bias = net.auxiliary[0].front.bias
    seen = []
    bias.layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps = torch.randn(3, 8, 4, 4)
    bias(maps)
    torch.testing.assert_close(seen[0][:, :2], maps.mean((2, 3))[:, None].expand(-1, 2, -1))
    assert torch.equal(seen[0][:, 2:], maps.flatten(2).transpose(1, 2))


class Bound(nn.Module):
    """A residual block with a weight for each position."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.mix, self.bias = nn.Conv2d(8, 8, 1), nn.Parameter(torch.zeros(side, side))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x + self.bias)


class Narrowing(nn.Module):
    """Blocks on maps of 16 x 16, then on maps of 4 x 4, of the same width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 4, 4)
        self.one, self.two, self.three, self.fc = Bound(16), Bound(4), Bound(4), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.down(self.one(self.stem(x))))
        return self.fc(self.three(x).mean((2, 3)))


def test_a_copy_that_takes_other_sizes_is_named_with_the_rules_that_work():
    with pytest.raises(ll.LocalLearnError) as error:
        ll.localize(Narrowing(), ll.AugLocal(depth=2), input_shape=IMAGES)
    sentence = str(error.value)
    assert sentence.startswith(
        "the auxiliary network after layer 'stem' cannot take features of shape 8x16x16, because its copy of layer"
        " 'three' takes other sizes only ("
    )
    assert sentence.endswith(
        "): use a rule that copies no layers, such as DGL, Pooling, PredSim or InfoPro, or end modules elsewhere by"
        " modules=[...]."
    )
    assert isinstance(error.value.__cause__, RuntimeError)


@pytest.mark.parametrize("rule", [ll.DGL(), ll.Pooling(), ll.PredSim(), ll.InfoPro()], ids=str)
def test_rules_that_copy_no_layers_take_layers_that_are_bound_to_a_size(rule):
    net = ll.localize(Narrowing(), rule, input_shape=IMAGES)
    assert net.backward(torch.randn(4, *IMAGES), torch.arange(4)).isfinite().all()


class OfVectors(nn.Module):
    """A residual block of vectors, (batch, channels)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.one(x).relu())


@pytest.mark.parametrize("rule", [*COPYING, ll.ImageNetAugLocal(depth=3)], ids=str)
def test_residual_blocks_of_vectors_are_copied(rule):
    torch.manual_seed(0)
    blocks = [OfVectors(8), OfVectors(8), nn.Linear(8, 12), OfVectors(12), OfVectors(12)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), *blocks, nn.Linear(12, 5))
    net = ll.localize(model, rule, input_shape=(3, 8, 8))
    assert len(net.chain) == 6
    net.backward(torch.randn(4, 3, 8, 8), torch.arange(4))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    copied = sum(isinstance(part, OfVectors) for part in net.auxiliary.modules())
    assert copied >= len(net.auxiliary)

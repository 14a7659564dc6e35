"""Where images and channels are follows from what the operators do, not from sizes."""

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._chain.channel_tracker import ChannelTracker
from locallearn._chain.layout import Kind


class Operators(nn.Module):
    """A layer of one function, with a weight of a size or a module."""

    def __init__(self, function, *weights: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for index, weight in enumerate(weights):
            setattr(self, f"w{index}", weight)
        self.count = len(weights)

    def forward(self, x):
        return self.function(x, *(getattr(self, f"w{index}") for index in range(self.count)))


def chain(*layers: nn.Module, classifier: nn.Module | None = None, shape=(3, 16, 16)) -> ll.TracedChain:
    named = {f"layer{index}": layer for index, layer in enumerate(layers)}

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(layers)
            self.classifier = classifier or nn.Sequential(nn.Flatten(), nn.LazyLinear(5))

        def chain(self) -> ll.Chain:
            return ll.Chain(layers=named, classifier=self.classifier)

    net = Network()
    if classifier is None:
        x = torch.zeros(2, *shape)
        for part in net.parts:
            x = part(x)
        net.classifier(x)
    return ll.localize(net, ll.BP(), input_shape=shape).chain


def as_row(x):
    """(batch, 3, 256) of the pixels of (batch, 3, 16, 16)."""
    return x.flatten(2)


def test_one_dimensional_features_are_refused():
    layer = nn.Sequential(Operators(as_row), nn.Conv1d(3, 16, 3, padding=1))
    with pytest.raises(ll.LocalLearnError, match=r"'layer0' .*one-dimensional features.* 16x256.*not supported yet"):
        chain(layer)


def test_three_dimensional_features_are_refused():
    layer = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 3, padding=1))
    with pytest.raises(ll.LocalLearnError, match=r"'layer0' .*4x3x16x16.*three-dimensional inputs are not supported"):
        chain(layer)


@pytest.mark.parametrize("batch_first", [False, True])
def test_sequence_first_transformers_are_refused_and_batch_first_ones_work(batch_first):
    def tokens(x, conv):
        x = conv(x).flatten(2)
        return x.transpose(1, 2) if batch_first else x.permute(2, 0, 1)

    encoder = nn.TransformerEncoderLayer(8, 2, 8, batch_first=batch_first)
    network = (Operators(tokens, nn.Conv2d(3, 8, 4, 4)), encoder)
    if batch_first:
        assert {layout.kind for layout in chain(*network).layouts} == {Kind.TOKENS}
        return
    classifier = nn.Sequential(Operators(lambda x: x.mean(0)), nn.Linear(8, 5))
    with pytest.raises(ll.LocalLearnError, match=r"'layer0' .*images are in dimension 1.*batch_first=True"):
        chain(*network, classifier=classifier)


class TokenMixer(nn.Module):
    """Mixes positions by a linear layer over tokens, beside a shortcut."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.linear, self.first = nn.Linear(16, 16), first

    def forward(self, x):
        mixed = self.linear(x.transpose(1, 2)).transpose(1, 2)
        return mixed + x if self.first else x + mixed


@pytest.mark.parametrize("first", [False, True])
def test_a_layer_that_mixes_positions_leaves_the_channels_last(first):
    embed = Operators(lambda x, w: w(x).flatten(2).transpose(1, 2), nn.Conv2d(3, 8, 4, 4))
    assert [layout.shape for layout in chain(embed, TokenMixer(first)).layouts] == [(8, 4, 4)] * 2


def test_equal_sizes_are_told_apart():
    to_last = Operators(lambda x, w: w(x.permute(0, 2, 3, 1)), nn.Linear(8, 8))
    first = nn.Conv2d(3, 8, 2, 2)
    kinds = [layout.kind for layout in chain(first, nn.Conv2d(8, 8, 1), to_last, nn.Linear(8, 8)).layouts]
    assert kinds == [Kind.MAP, Kind.MAP, Kind.CHANNELS_LAST, Kind.CHANNELS_LAST]


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


OPERATORS = {  # from (2, 4, 6, 8) with channels in dimension 1
    "conv": (lambda x: nn.Conv2d(4, 5, 1)(x).relu(), 1),
    "permute": (lambda x: x.permute(2, 3, 1, 0), 2),
    "transpose": (lambda x: x.transpose(1, 3).contiguous(), 3),
    "tokens": (lambda x: x.flatten(2).transpose(1, 2), 2),
    "split": (lambda x: x.chunk(2, 1)[1], 1),
    "cat": (lambda x: torch.cat([x, x * 2], 1), 1),
    "shuffle": (lambda x: x.view(2, 2, 2, 6, 8).transpose(1, 2).reshape(2, 4, 6, 8), 1),
    "pool": (lambda x: nn.functional.adaptive_avg_pool2d(x, 2), 1),
    "mean": (lambda x: x.mean(2), 1),
    "mean of channels": (lambda x: x.mean(1), None),
    "select": (lambda x: x.permute(0, 2, 3, 1)[:, 0], 2),
    "squeeze": (lambda x: x.unsqueeze(1).unsqueeze(-1).squeeze(), 1),
    "stack": (lambda x: torch.stack([x, x], 1), 2),
    "einsum": (lambda x: torch.einsum("bchw,dc->bdhw", x, weight(5, 4)), 1),
    "weight on the left": (lambda x: weight(5, 4) @ x.flatten(2), 1),
    "linear": (lambda x: nn.Linear(4, 5)(x.permute(0, 2, 3, 1)), 3),
    "layer norm": (lambda x: nn.LayerNorm(4)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 1),
    "layer norm of maps": (lambda x: nn.LayerNorm([4, 6, 8])(x), 1),
    "group norm": (lambda x: nn.GroupNorm(2, 4)(x), 1),
    "batch norm": (lambda x: nn.BatchNorm2d(4)(x), 1),
    "attention": (
        lambda x: nn.MultiheadAttention(4, 2, batch_first=True)(*[x.flatten(2).transpose(1, 2)] * 3)[0],
        2,
    ),
    "windows": (lambda x: x.permute(0, 2, 3, 1).view(2, 3, 2, 4, 2, 4).transpose(2, 3).reshape(24, 4, 4), 2),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_channels_are_followed_through_operators(name):
    function, dimension = OPERATORS[name]
    x = torch.randn(2, 4, 6, 8)
    tracker = ChannelTracker()
    tracker.mark(x, 1)
    with torch.no_grad(), tracker:
        output = function(x)
    assert tracker.dimension_of(output) == dimension


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
def test_layers_that_pass_on_numbers_of_another_type_train_by_bp_alone(dtype):
    parts = [nn.Conv2d(3, 4, 3), Operators(lambda x: x.to(dtype)), nn.Conv2d(4, 4, 3, dtype=dtype)]
    network = nn.Sequential(*parts, Operators(lambda x: x.abs().float()), nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ll.LocalLearnError, match=f"layer '0' passes on {dtype}, but an auxiliary network .* or use BP"):
        ll.localize(network, ll.Pooling(), input_shape=(3, 8, 8))
    net = ll.localize(network, ll.BP(), input_shape=(3, 8, 8))
    assert net.backward(torch.randn(2, 3, 8, 8), torch.arange(2)).isfinite().all()

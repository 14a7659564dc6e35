"""Height and width of the map in a row of tokens follow from how the map was flattened, never from sizes."""

import pytest
import torch
from tiny_networks import small_nest
from torch import nn

import locallearn as ll
from locallearn._chain.layout import Kind, Layout
from locallearn._chain.layout_detection import layout_after
from locallearn._chain.position_tracker import PositionTracker

BATCH, CHANNELS, HEIGHT, WIDTH = 2, 4, 6, 8


def layout(function, channels: int, x: torch.Tensor | None = None) -> Layout:
    """The layout of a function's output, whose channels are in a dimension, for a map of 6 x 8."""
    x = torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH) if x is None else x
    tracker = PositionTracker(x)
    with torch.no_grad(), tracker:
        output = function(x)
    other = output.new_empty(3, *output.shape[1:])
    return layout_after("layer", (output, other), channels, tracker.dimensions_of(output))


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def windows(x):
    """(batch of windows, 12 tokens, channels)"""
    return x.view(2, 4, 2, 3, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 12, 4)


def from_windows(w):
    return w.view(2, 2, 2, 3, 4, 4).permute(0, 5, 1, 3, 2, 4).reshape(2, 4, 6, 8)


def merged_patches(x):
    """Patches of 2 x 2 in the channels, as in Swin."""
    return x.view(2, 4, 3, 2, 4, 2).permute(0, 2, 4, 3, 5, 1).flatten(3)


def attended(x):
    return nn.MultiheadAttention(4, 2, batch_first=True)(*[tokens(x)] * 3)[0]


TOKENS = {  # shape of the map, and prefix tokens
    "flatten": (tokens, (4, 6, 8), 0),
    "einsum": (lambda x: torch.einsum("bchw->bhwc", x).flatten(1, 2), (4, 6, 8), 0),
    "reshape after channels last": (lambda x: x.permute(0, 2, 3, 1).reshape(2, -1, 4), (4, 6, 8), 0),
    "patches of 3 x 2": (lambda x: tokens(nn.Conv2d(4, 5, (3, 2), (3, 2))(x)), (5, 2, 4), 0),
    "class token first": (lambda x: torch.cat([weight(2, 1, 4), tokens(x)], 1), (4, 6, 8), 1),
    "two cats": (lambda x: torch.cat([weight(2, 3, 4), torch.cat([weight(2, 1, 4), tokens(x)], 1)], 1), (4, 6, 8), 4),
    "mean of the map first": (lambda x: torch.cat([tokens(x).mean(1, True), tokens(x)], 1), (4, 6, 8), 1),
    "class token removed": (lambda x: torch.cat([weight(2, 1, 4), tokens(x)], 1)[:, 1:], (4, 6, 8), 0),
    "one of two removed": (lambda x: torch.cat([weight(2, 2, 4), tokens(x)], 1)[:, 1:], (4, 6, 8), 1),
    "class token split off": (lambda x: torch.cat([weight(2, 1, 4), tokens(x)], 1).split([1, 48], 1)[1], (4, 6, 8), 0),
    "linear": (lambda x: nn.Linear(4, 7)(tokens(x)), (7, 6, 8), 0),
    "attention": (attended, (4, 6, 8), 0),
    "positions added": (lambda x: weight(1, 48, 4) + tokens(x), (4, 6, 8), 0),
    "positions mixed, beside a shortcut": (
        lambda x: nn.Linear(48, 48)(tokens(x).transpose(1, 2)).transpose(1, 2) + tokens(x),
        (4, 6, 8),
        0,
    ),
    "windows and back": (lambda x: tokens(from_windows(windows(x))), (4, 6, 8), 0),
    "pooled": (lambda x: tokens(nn.functional.avg_pool2d(x, 2)), (4, 3, 4), 0),
    "every second": (lambda x: x.permute(0, 2, 3, 1)[:, ::2, ::2].flatten(1, 2), (4, 3, 4), 0),
    "padded": (lambda x: tokens(nn.functional.pad(x, (0, 1, 0, 2))), (4, 8, 9), 0),
    "rolled": (lambda x: tokens(x.roll((1, 2), (2, 3))), (4, 6, 8), 0),
    "patches merged": (lambda x: merged_patches(x).flatten(1, 2), (16, 3, 4), 0),
    "a map of convolutions alone": (
        lambda x: tokens(nn.Conv2d(1, 4, 3, padding=1)(nn.Linear(192, 15)(x.flatten(1)).view(2, 1, 3, 5))),
        (4, 3, 5),
        0,
    ),
}


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_have_the_grid_of_the_map_they_come_from(name):
    function, shape, prefix = TOKENS[name]
    assert layout(function, 2) == Layout(Kind.TOKENS, shape, prefix)


def test_a_grid_that_could_be_a_square_is_none():
    assert layout(tokens, 2, torch.randn(2, 4, 8, 2)).shape == (4, 8, 2)


NO_MAP = {  # channels; why it is no map
    "class token last": (lambda x: torch.cat([tokens(x), weight(2, 1, 4)], 1), 2, "more tokens after it"),
    "columns first": (lambda x: tokens(x.transpose(2, 3)), 2, "down the columns"),
    "rows": (lambda x: nn.Linear(32, 5)(x.permute(0, 2, 1, 3).flatten(2)), 2, "no map"),
    "positions mixed": (lambda x: nn.Linear(48, 48)(x.flatten(2)).transpose(1, 2), 2, "no map"),
    "positions in another order": (lambda x: tokens(x)[:, torch.randperm(48)], 2, "no map"),
    "sorted": (lambda x: tokens(x).sort(1)[0], 2, "no map"),
    "half a grid": (lambda x: tokens(x)[:, :24], 2, "no map"),
    "two maps": (lambda x: torch.cat([tokens(x), tokens(x[:, :, :2])], 1), 2, "several maps"),
    "window by window": (lambda x: windows(x).reshape(2, 48, 4), 2, "not in the order of a map"),
    "blocks": (lambda x: windows(x).view(2, 4, 12, 4), 3, "groups of positions"),
    "a map on its side": (lambda x: x.transpose(2, 3), 1, "changed places"),
    "patches as in MobileViT": (lambda x: windows(x).view(2, 4, 12, 4).permute(0, 3, 2, 1), 1, "groups of positions"),
}


@pytest.mark.parametrize("name", NO_MAP)
def test_what_is_no_map_is_not_taken_for_one(name):
    function, channels, reason = NO_MAP[name]
    assert reason in layout(function, channels).no_map


@pytest.mark.parametrize("function", [lambda x: x, lambda x: nn.Linear(192, 60)(x.flatten(1)).view(2, 4, 3, 5)])
def test_channels_first_and_two_more_dimensions_are_a_map(function):
    assert layout(function, 1).no_map == ""


class Rows(nn.Module):
    """A GRU over the rows of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(48, 8, batch_first=True)

    def forward(self, x):
        return self.gru(x.permute(0, 2, 1, 3).flatten(2))[0]


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def rows() -> nn.Module:
    return nn.Sequential(Rows(), nn.Linear(8, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 8), Mean()), nn.Linear(8, 5))


@pytest.mark.parametrize("rule", [ll.BP(), ll.Checkpoint(), ll.Pooling()], ids=str)
def test_rules_that_need_no_map_train_on_rows(rule):
    net = ll.localize(rows(), rule, input_shape=(3, 16, 16))
    assert net.backward(torch.randn(2, 3, 16, 16), torch.arange(2)).isfinite().all()


RULES = [ll.DGL(), ll.PredSim(), ll.InfoPro(), ll.AugLocal(depth=2), ll.MAN(ll.Pooling()), ll.HPFF(ll.DGL())]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rules_that_need_a_map_refuse_rows_and_name_the_layer(rule):
    with pytest.raises(ll.LocalLearnError, match=r"layer '[01]' must pass on a map .*BP, Checkpoint or Pooling\.$"):
        ll.localize(rows(), rule, input_shape=(3, 16, 16))


def test_blocks_of_tokens_are_refused_and_the_levels_around_them_train():
    refusal = r"layer 'patch_embed' must pass on a map .*groups of positions .* by layers=\[r\"levels\\\.\\d\+\"\], or"
    with pytest.raises(ll.LocalLearnError, match=refusal):
        ll.localize(small_nest(), ll.DGL(), input_shape=(3, 32, 32))
    net = ll.localize(small_nest(), ll.DGL(), input_shape=(3, 32, 32), layers=[r"levels\.\d+"])
    assert net.chain.shapes == ((16, 8, 8), (32, 4, 4))
    assert net.backward(torch.randn(2, 3, 32, 32), torch.arange(2)).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ll.AugLocal(depth=2), ll.MAN(ll.DGL()), ll.MLAAN(ll.DGL())], ids=str)
def test_rules_that_copy_layers_train_the_levels_of_blocks_of_tokens(rule):
    net = ll.localize(small_nest(3), rule, input_shape=(3, 32, 32), layers=[r"levels\.\d+"])
    assert len(net.chain) == 3
    assert net.backward(torch.randn(2, 3, 32, 32), torch.arange(2)).isfinite().all()
    assert all(parameter.grad is not None for parameter in net.model.parameters())

"""Copies with a fraction of the channels, and auxiliary networks made of them."""

from dataclasses import replace

import pytest
import torch
from tiny_networks import timm, tiny
from torch import nn

import locallearn as ll
from locallearn._nn.layer_like import NoLayerLikeError
from locallearn._nn.narrow import narrow_copy

BLOCKS = {  # network: a block, its input and output width
    "resnet, basic blocks": ("layer2.1", 8, 8),
    "resnet, grouped bottlenecks": ("layer2.1", 32, 32),
    "mobilenet": ("features.3", 16, 16),
    "efficientnet": ("features.2.1", 16, 16),
    "regnet": ("trunk_output.block2.block2-1", 16, 16),
}


@pytest.mark.parametrize("network", BLOCKS)
def test_every_part_of_a_block_has_half_its_channels(network):
    name, before, after = BLOCKS[network]
    layer = tiny(network).get_submodule(name)
    widths = {part: value.shape for part, value in layer.state_dict().items()}
    new = narrow_copy(layer, 0.5)
    assert new(torch.randn(2, before // 2, 8, 8)).shape == (2, after // 2, 8, 8)
    assert {part: value.shape for part, value in layer.state_dict().items()} == widths
    for part, value in new.state_dict().items():
        assert value.shape[:1] == tuple(size // 2 for size in widths[part][:1])


def test_convolutions_keep_their_settings():
    layer = nn.Conv2d(8, 16, 3, 2, padding=2, dilation=2, groups=2, padding_mode="reflect")
    new = narrow_copy(layer, 0.25)
    assert isinstance(new, nn.Conv2d)
    assert new.weight.shape == (4, 1, 3, 3)
    settings = ("stride", "padding", "dilation", "groups", "padding_mode")
    assert [getattr(new, name) for name in settings] == [getattr(layer, name) for name in settings]
    depthwise = narrow_copy(nn.Conv2d(8, 16, 3, groups=8, bias=False), 0.5)
    assert isinstance(depthwise, nn.Conv2d)
    assert (depthwise.groups, depthwise.weight.shape, depthwise.bias) == (4, (8, 1, 3, 3), None)


def test_layers_keep_their_class_and_their_activation():
    norm = timm.layers.BatchNormAct2d(8, eps=0.5, act_layer=nn.SiLU)
    new = narrow_copy(
        nn.Sequential(timm.layers.Conv2dSame(8, 8, 3, stride=2), norm, timm.layers.GroupNormAct(8, 2, apply_act=False)),
        0.5,
    )
    conv, batch, group = new
    assert (type(conv), type(batch), type(group)) == (
        timm.layers.Conv2dSame,
        timm.layers.BatchNormAct2d,
        timm.layers.GroupNormAct,
    )
    assert (batch.eps, type(batch.act), type(group.act)) == (0.5, nn.SiLU, nn.Identity)
    assert batch.weight.shape == batch.running_var.shape == group.bias.shape == (4,)
    assert new(torch.randn(2, 4, 5, 5)).shape == (2, 4, 3, 3)
    with pytest.raises(NoLayerLikeError, match="a ScaledStdConv2d has weights whose widths are not known"):
        narrow_copy(timm.layers.ScaledStdConv2d(8, 8, 3), 0.5)


def test_what_has_other_weights_is_refused():
    with pytest.raises(NoLayerLikeError, match="a Conv2d of 4 groups and 8 channels cannot have 2 channels"):
        narrow_copy(nn.Sequential(nn.Conv2d(8, 8, 1, groups=4)), 0.25)
    with pytest.raises(
        ll.LocalLearnError, match=r"AugLocal, layer 'encoder.*LayerNorm inside it cannot be made narrower"
    ):
        ll.localize(tiny("vit"), ll.AugLocal(depth=2, narrow=0.5), input_shape=(3, 16, 16))
    for narrow in (0.0, 1.5):
        with pytest.raises(ll.LocalLearnError, match=f"narrow={narrow} must be above 0 and at most 1"):
            ll.AugLocal(narrow=narrow)


def widths(rule: ll.Rule, network: str = "resnet, basic blocks") -> list[list[int]]:
    """Output channels of the 3x3 convolutions of each module's auxiliary network."""
    net = ll.localize(tiny(network), rule, input_shape=(3, 32, 32))
    assert net.backward(torch.randn(4, 3, 32, 32), torch.arange(4)).isfinite().all()
    parts = [[*objective.auxiliary.modules()] for objective in net.objectives[:-1]]
    convolutions = [[part for part in each if isinstance(part, nn.Conv2d)] for each in parts]
    return [[part.out_channels for part in each if part.kernel_size == (3, 3)] for each in convolutions]


@pytest.mark.parametrize(
    ("rule", "network"),
    [
        (ll.AugLocal(depth=3), "resnet, basic blocks"),
        (ll.SequentialAugLocal(depth=3, fidelity="paper"), "resnet, basic blocks"),
        (ll.ImageNetAugLocal(depth=3), "vgg"),
    ],
    ids=str,
)
def test_auxiliary_networks_of_half_the_width(rule, network):
    full, half = widths(rule, network), widths(replace(rule, narrow=0.5), network)
    assert half == [[width // 2 for width in each] for each in full]
    assert any(full)


def test_convolutions_of_the_same_cost_follow_the_narrower_layers():
    (full, half) = (sum(map(sum, widths(ll.ConvolutionalAugLocal(depth=3, narrow=narrow)))) for narrow in (1.0, 0.5))
    assert 0.4 * full < half < 0.6 * full

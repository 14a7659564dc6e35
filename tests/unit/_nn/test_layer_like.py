"""New layers like the backbone's: of every family, with other widths and strides."""

import copy
import re
from pathlib import Path

import pytest
import torch
from tiny_networks import TINY, tiny
from torch import nn

import locallearn as ll
from locallearn._nn.layer_like import Adapted, NoLayerLikeError

IMAGES = (3, 16, 16)
BLOCKS = {  # network: a block with a residual connection, its output width
    "resnet, basic blocks": ("layer2.1", 8),
    "resnet, grouped bottlenecks": ("layer2.1", 32),
    "mobilenet": ("features.3", 16),
    "efficientnet": ("features.2.1", 16),
    "regnet": ("trunk_output.block2.block2-1", 16),
}


def layer_of(network: str, name: str) -> nn.Module:
    return tiny(network).get_submodule(name)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("in_channels", [8, 16, 32, 40])
@pytest.mark.parametrize("network", BLOCKS)
def test_blocks_take_any_width_and_stride(network, in_channels, stride):
    name, width = BLOCKS[network]
    layer = layer_of(network, name)
    before = copy.deepcopy(layer.state_dict())
    new = ll.new_layer_like(layer, in_channels=in_channels, stride=stride)
    assert type(new) is type(layer)
    assert new(torch.randn(2, in_channels, 8, 8)).shape == (2, width, 8 // stride, 8 // stride)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    tensors = {value.data_ptr() for value in layer.state_dict().values() if value.numel()}
    assert not tensors & {value.data_ptr() for value in new.state_dict().values() if value.numel()}


def projection(layer: nn.Module) -> nn.Module | None:
    return getattr(layer, "downsample", None) or getattr(layer, "proj", None)


@pytest.mark.parametrize("network", ["resnet, basic blocks", "resnet, grouped bottlenecks", "regnet"])
def test_a_projection_stands_where_width_or_stride_change(network):
    name, width = BLOCKS[network]
    layer = layer_of(network, name)
    assert projection(ll.new_layer_like(layer, in_channels=width, stride=1)) is None
    for in_channels, stride in ((width, 2), (width + 8, 1)):
        conv, norm = projection(ll.new_layer_like(layer, in_channels=in_channels, stride=stride))
        assert (conv.in_channels, conv.out_channels, conv.stride) == (in_channels, width, (stride, stride))
        assert norm.num_features == width


@pytest.mark.parametrize(("network", "flag"), [("mobilenet", "use_res_connect"), ("efficientnet", "use_res_connect")])
def test_inverted_residuals_add_their_input_where_shapes_agree(network, flag):
    name, width = BLOCKS[network]
    layer = layer_of(network, name)
    found = [
        getattr(ll.new_layer_like(layer, in_channels=channels, stride=stride), flag)
        for channels, stride in ((width, 1), (width, 2), (width + 8, 1))
    ]
    assert found == [True, False, False]


def test_groups_squeeze_excitation_and_inner_widths_stay():
    name, _ = BLOCKS["resnet, grouped bottlenecks"]
    layer = layer_of("resnet, grouped bottlenecks", name)
    new = ll.new_layer_like(layer, in_channels=24, stride=2)
    assert (new.conv2.groups, new.conv2.stride, new.conv1.stride) == (2, (2, 2), (1, 1))
    assert (new.conv1.in_channels, new.conv2.in_channels) == (24, layer.conv2.in_channels)
    name, _ = BLOCKS["efficientnet"]
    layer = layer_of("efficientnet", name)
    new = ll.new_layer_like(layer, in_channels=24, stride=2)
    assert [type(part) for part in new.block] == [type(part) for part in layer.block]
    assert sum(p.numel() for p in new.block[1:].parameters()) == sum(p.numel() for p in layer.block[1:].parameters())
    assert new.block[1][0].stride == (2, 2)


def test_normalisations_start_fresh_and_convolutions_as_he_et_al():
    layer = layer_of("resnet, basic blocks", "layer2.1")
    for part in layer.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.constant_(part.weight, 7.0)
            nn.init.constant_(part.running_mean, 7.0)
    new = ll.new_layer_like(layer, in_channels=512, stride=2)
    for part in new.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert torch.equal(part.weight, torch.ones_like(part.weight))
            assert torch.equal(part.running_mean, torch.zeros_like(part.running_mean))
    assert abs(new.conv1.weight.std().item() / (2 / (9 * 8)) ** 0.5 - 1) < 0.05


def test_a_block_whose_first_convolution_has_groups_cannot_be_rewired():
    layer = layer_of("mobilenet", "features.1")  # no expansion: the depthwise convolution comes first
    assert ll.new_layer_like(layer, in_channels=8, stride=2)(torch.randn(2, 8, 8, 8)).shape[2:] == (4, 4)
    with pytest.raises(NoLayerLikeError, match="InvertedResidual has 8 groups"):
        ll.new_layer_like(layer, in_channels=16, stride=1)


def test_an_unknown_type_is_named_and_can_be_registered():
    class Odd(nn.Module):
        pass

    with pytest.raises(NoLayerLikeError, match="like a Odd: register a function"):
        ll.new_layer_like(Odd(), in_channels=3, stride=1)
    ll.new_layer_like.register(Odd, lambda layer, *, in_channels, stride: nn.Conv2d(in_channels, 4, 1, stride))
    assert ll.new_layer_like(Odd(), in_channels=3, stride=2).in_channels == 3


@pytest.mark.parametrize("network", TINY)
def test_auglocal_imitates_layers_of_every_family(network):
    net = ll.localize(tiny(network), ll.AugLocal(depth=3, fidelity="paper"), input_shape=IMAGES)
    assert len(net.objectives) == len(net.chain) == TINY[network][1]
    losses = net.backward(torch.randn(4, *IMAGES), torch.arange(4))
    assert losses.isfinite().all()
    assert all(p.grad is not None for p in net.parameters())
    backbone = {id(p) for p in net.model.parameters()}
    assert not any(id(p) in backbone for p in net.auxiliary.parameters())


def test_the_input_of_a_copied_layer_is_adapted():
    chain = ll.localize(tiny("convnext"), ll.BP(), input_shape=IMAGES).chain
    place = chain.names.index("features.3.0")  # 16 channels
    same = chain.new_like(place, in_channels=16, stride=1)
    other = chain.new_like(place, in_channels=8, stride=2)
    assert isinstance(same, Adapted)
    assert [type(part).__name__ for part in same] == ["CNBlock"]
    assert [type(part).__name__ for part in other] == ["AvgPool2d", "Conv2d", "CNBlock"]
    assert other(torch.randn(2, 8, 5, 5)).shape == (2, 16, 3, 3)
    halving = chain.new_like(chain.names.index("features.2"), in_channels=8, stride=2)
    assert halving(torch.randn(2, 8, 8, 8)).shape == (2, 16, 4, 4)


@pytest.mark.parametrize(
    ("network", "rule"),
    [
        *((network, ll.MAN(ll.Pooling())) for network in TINY if network not in ("timm convnext", "regnet")),
        *((network, ll.LAM(ll.Pooling())) for network in ("resnet, basic blocks", "timm vit", "swin")),
    ],
    ids=str,
)
def test_wrappers_copy_layers_of_every_family(network, rule):
    net = ll.localize(tiny(network), rule, modules=4, input_shape=IMAGES)
    losses = net.backward(torch.randn(4, *IMAGES), torch.arange(4))
    assert losses.isfinite().all()
    assert all(p.grad is not None for p in net.parameters())


def test_an_unknown_layer_is_copied_and_adapted_unless_registered_as_the_documentation_says():
    page = Path(__file__).parents[3] / "docs" / "extending.md"
    (snippet,) = (code for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if "MyBlock" in code)
    block, registration = snippet.split("\n\n\n")
    names: dict = {"ll": ll, "torch": torch, "nn": nn}
    exec(block, names)
    model = nn.Sequential(*(names["MyBlock"](*widths) for widths in ((3, 8), (8, 8), (8, 12), (12, 12))), nn.Flatten())
    model.append(nn.Linear(12 * 8 * 8, 5))

    def first_layer() -> nn.Module:
        net = ll.localize(model, ll.AugLocal(depth=2, fidelity="paper"), input_shape=(3, 8, 8))
        assert net.backward(torch.randn(4, 3, 8, 8), torch.arange(4)).isfinite().all()
        return net.objectives[0].auxiliary.network[0]

    def widths(layer: nn.Module) -> list[int]:
        return [part.in_channels for part in layer.modules() if isinstance(part, nn.Conv2d)]

    assert isinstance(first_layer(), Adapted)
    assert widths(first_layer()) == [8, 12, 12]  # the 1x1 convolution, the copy
    exec(registration, names)
    assert widths(first_layer()) == [8, 8]

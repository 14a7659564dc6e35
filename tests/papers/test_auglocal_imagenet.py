"""AugLocal on ImageNet networks: official code, `exp_imagenet/`. Layers count from 0; depth counts the classifier."""

import functools
import math

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn import models
from locallearn._objectives.objective import Level, Site
from networks import count

DIMS = {  # base width of each layer: 64 for the stem
    "resnet34": [64] * 4 + [128] * 4 + [256] * 6 + [512] * 3,
    "resnet101": [64] * 4 + [128] * 4 + [256] * 23 + [512] * 3,
    "resnet50": [64] * 4 + [128] * 4 + [256] * 6 + [512] * 3,
    "vgg13": [64] * 2 + [128] * 2 + [256] * 2 + [512] * 4,
    "vgg19": [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8,
}
# network, layer: layers selected, base widths and strides (for VGG: whether max pooling comes before)
WORKED = {
    ("resnet34", 5, 0): [(4, 128, 2), (8, 256, 2), (12, 256, 1), (16, 512, 2)],
    ("resnet34", 5, 1): [(5, 128, 2), (8, 256, 2), (12, 256, 1), (16, 512, 2)],
    ("resnet34", 5, 4): [(7, 128, 1), (10, 256, 2), (13, 256, 1), (16, 512, 2)],
    ("resnet34", 5, 7): [(9, 256, 2), (12, 256, 1), (14, 512, 2), (16, 512, 1)],
    ("resnet34", 5, 12): [(13, 256, 1), (14, 512, 2), (15, 512, 1), (16, 512, 1)],
    ("resnet34", 5, 13): [(14, 512, 2), (15, 512, 1), (16, 512, 1)],
    ("resnet34", 5, 15): [(16, 512, 1)],
    ("resnet101", 4, 0): [(11, 256, 2), (22, 256, 2), (33, 512, 2)],
    ("resnet101", 4, 3): [(13, 256, 2), (23, 256, 2), (33, 512, 2)],
    ("resnet101", 4, 6): [(15, 256, 2), (24, 256, 1), (33, 512, 2)],
    ("resnet101", 4, 30): [(31, 512, 2), (32, 512, 1), (33, 512, 1)],
    ("resnet101", 4, 32): [(33, 512, 1)],
    ("vgg13", 3, 0): [(4, 256, 2), (9, 512, 2)],
    ("vgg13", 3, 1): [(5, 256, 2), (9, 512, 2)],
    ("vgg13", 3, 3): [(6, 512, 2), (9, 512, 1)],
    ("vgg13", 3, 7): [(8, 512, 1), (9, 512, 1)],
    ("vgg13", 3, 8): [(9, 512, 1)],
}
DEPTHS = {"resnet34": 5, "resnet101": 4, "resnet50": 4, "vgg13": 3, "vgg19": 3}
EXPANSION = {"resnet101": 4, "resnet50": 4}
ALL_AUXILIARY_NETWORKS = {  # parameters
    "resnet34": 154_359_936,
    "resnet101": 363_376_872,
    "resnet50": 182_167_168,
    "vgg13": 36_814_632,
    "vgg19": 71_683_224,
}
EVERY_LAYER = [(network, layer) for network, widths in DIMS.items() for layer in range(len(widths) - 1)]


@functools.cache
def localized(network: str) -> ll.LocalNet:
    return ll.localize(getattr(models, network)(), ll.BP(), input_shape=(3, 224, 224))


@functools.cache
def site(network: str, layer: int) -> Site:
    chain = localized(network).chain
    return Site(
        chain=chain,
        layer=layer,
        module=layer,
        modules=len(chain),
        level=Level.INDEPENDENT,
        loss=nn.functional.cross_entropy,
        published_modules=len(chain),
        schedule_index=layer,
        image_mean=(0.5,) * 3,
        image_std=(0.25,) * 3,
    )


def auxiliary(network: str, layer: int) -> nn.Module:
    return ll.AugLocal.imagenet(depth=DEPTHS[network]).auxiliary(site(network, layer)).network


@pytest.fixture
def undrawn(monkeypatch):
    """Weights are whatever was in memory, which saves half a minute."""
    for draw in ("normal_", "kaiming_uniform_", "kaiming_normal_"):
        monkeypatch.setattr(nn.init, draw, lambda weight, *_, **__: weight)


def basic(before: int, width: int, stride: int) -> int:
    """Parameters of a basic block: two 3x3 convolutions and BNs, and a projection where shape changes."""
    projection = before * width + 2 * width if stride != 1 or before != width else 0
    return 9 * before * width + 9 * width * width + 4 * width + projection


def bottleneck(before: int, width: int, stride: int) -> int:
    projection = before * 4 * width + 8 * width if stride != 1 or before != 4 * width else 0
    return before * width + 9 * width * width + 4 * width * width + 12 * width + projection


def convolution(before: int, width: int) -> int:
    return 9 * before * width + width + 2 * width


def worked_out(network: str, layer: int) -> list[tuple[int, int, int]]:
    """Layers selected, base widths and strides of an auxiliary network, from the official code's rules."""
    widths, last = DIMS[network], len(DIMS[network]) - 1
    hidden = min(DEPTHS[network] - 1, last - layer)
    found, current, pending = [], widths[layer], 0
    for i in range(1, hidden + 1):
        selected = round(layer + (last - layer) / hidden * i)  # half to even
        width = widths[selected]
        if network.startswith("vgg"):
            stride = 2 if width != current else 1
        else:
            pending += int(math.log2(width // current))
            stride = 2 if pending else 1
            pending -= stride - 1
        found.append((selected, width, stride))
        current = width
    return found


def expected_parameters(network: str, layer: int, blocks: list[tuple[int, int, int]]) -> int:
    expansion = EXPANSION.get(network, 1)
    before, found = DIMS[network][layer] * (expansion if layer else 1), 0
    for _, width, stride in blocks:
        if network.startswith("vgg"):
            found += convolution(before, width)
        else:
            found += (bottleneck if expansion == 4 else basic)(before, width, stride)
        before = width * expansion
    head = 2 * (512 * 512 + 512 + 2 * 512) if network.startswith("vgg") else 0
    return found + head + 512 * expansion * 1000 + 1000


@pytest.mark.parametrize(("network", "depth", "layer"), WORKED)
def test_the_expected_selection_is_that_of_the_examples(network, depth, layer):
    assert depth == DEPTHS[network]
    assert worked_out(network, layer) == WORKED[network, depth, layer]


@pytest.mark.parametrize(("network", "layer"), EVERY_LAYER)
@pytest.mark.usefixtures("undrawn")
def test_section_3_2_layers_widths_strides_and_parameters(network, layer):
    expected = worked_out(network, layer)
    selected = ll.AugLocal.imagenet(depth=DEPTHS[network]).selected(site(network, layer))
    assert selected == [index for index, _, _ in expected]
    assert [DIMS[network][found] for found in selected] == [width for _, width, _ in expected]
    found = auxiliary(network, layer)
    parts = list(found)
    if network.startswith("vgg"):
        pools = [isinstance(part, nn.MaxPool2d) for part in parts[: len(parts) - 8]]
        built = [2 if i and pools[i - 1] else 1 for i, pool in enumerate(pools) if not pool]
        assert all(part[0].stride == (1, 1) for part in parts[: len(pools)] if isinstance(part, nn.Sequential))
    else:
        looking = "conv2" if network in EXPANSION else "conv1"
        built = [getattr(part, looking).stride[0] for part in parts[: len(selected)]]
    assert built == [stride for _, _, stride in expected]
    assert count(found) == expected_parameters(network, layer, expected)


@pytest.mark.parametrize("network", DIMS)
def test_parameters_of_all_auxiliary_networks(network):
    layers = range(len(DIMS[network]) - 1)
    total = sum(expected_parameters(network, layer, worked_out(network, layer)) for layer in layers)
    assert total == ALL_AUXILIARY_NETWORKS[network]


@pytest.mark.parametrize("network", DIMS)
def test_widths_of_the_backbone(network):
    expansion = EXPANSION.get(network, 1)
    widths = [localized(network).chain.width(i) for i in range(len(DIMS[network]))]
    assert widths == [width * (expansion if i else 1) for i, width in enumerate(DIMS[network])]


@pytest.mark.parametrize("network", DIMS)
def test_every_module_stays_and_all_auxiliary_networks_are_as_deep_as_can_be(network):
    depth = DEPTHS[network]
    rule = ll.AugLocal.imagenet(depth=depth)
    layers = len(DIMS[network])
    parts = localized(network).partition
    assert rule.partition(parts) is parts
    hidden = [rule.hidden(site(network, layer)) for layer in range(layers - 1)]
    assert hidden == [min(depth - 1, layers - 1 - layer) for layer in range(layers - 1)]


def test_heads_of_one_layer_have_no_batch_normalisation():
    assert [type(part).__name__ for part in auxiliary("resnet34", 15)] == [
        "BasicBlock",
        "GlobalAverage",
        "Linear",
    ]


def test_projections_are_where_width_or_stride_change():
    parts = auxiliary("resnet34", 0)
    assert [parts[i].downsample is None for i in range(4)] == [False, False, True, False]
    conv, norm = parts[1].downsample
    assert (conv.kernel_size, conv.stride, conv.bias, norm.num_features) == ((1, 1), (2, 2), None, 256)


def test_convolutions_of_resnets_start_as_kaiming_fan_out_and_those_of_vgg_as_pytorch_starts_them():
    torch.manual_seed(0)
    conv = auxiliary("resnet34", 15)[0].conv1
    assert abs(conv.weight.std().item() / (2 / (9 * 512)) ** 0.5 - 1) < 0.01
    conv = auxiliary("vgg13", 8)[0][0]
    assert abs(conv.weight.std().item() / (1 / (3 * 9 * 512)) ** 0.5 - 1) < 0.01
    assert conv.weight.abs().max() <= (1 / (9 * 512)) ** 0.5


@pytest.mark.parametrize("name", ["vgg13", "resnet34"])
def test_it_trains_on_small_forms(name):
    model = getattr(models.cifar, name)(num_classes=5)
    net = ll.localize(model, ll.AugLocal.imagenet(depth=3), modules=3, input_shape=(3, 32, 32))
    losses = net.backward(torch.randn(4, 3, 32, 32), torch.arange(4))
    assert losses.isfinite().all()
    assert all(p.grad is not None for p in net.parameters())


def test_eq3_a_pyramid_is_refused():
    with pytest.raises(ll.LocalLearnError, match=r"ImageNetAugLocal: tau=0\.5.*no pyramid"):
        ll.ImageNetAugLocal(tau=0.5)

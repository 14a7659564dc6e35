"""AugLocal on ImageNet networks: official code, `exp_imagenet/`. Layers count from 0; depth counts the classifier."""

import functools

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn import models
from locallearn._objectives import Level, Site

DIMS = {  # base width of each layer: 64 for the stem
    "resnet34": [64] * 4 + [128] * 4 + [256] * 6 + [512] * 3,
    "resnet101": [64] * 4 + [128] * 4 + [256] * 23 + [512] * 3,
    "vgg13": [64] * 2 + [128] * 2 + [256] * 2 + [512] * 4,
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
DEPTHS = {"resnet34": 5, "resnet101": 4, "vgg13": 3}


@functools.cache
def localized(network: str) -> ll.LocalNet:
    return ll.localize(getattr(models, network)(), ll.BP(), input_shape=(3, 224, 224))


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


def auxiliary(network: str, layer: int, depth: int | None = None) -> nn.Module:
    return ll.AugLocal.imagenet(depth=depth or DEPTHS[network]).auxiliary(site(network, layer)).network


def basic(before: int, width: int, stride: int) -> int:
    """Parameters of a basic block: two 3x3 convolutions and BNs, and a projection where shape changes."""
    projection = before * width + 2 * width if stride != 1 or before != width else 0
    return 9 * before * width + 9 * width * width + 4 * width + projection


def bottleneck(before: int, width: int, stride: int) -> int:
    projection = before * 4 * width + 8 * width if stride != 1 or before != 4 * width else 0
    return before * width + 9 * width * width + 4 * width * width + 12 * width + projection


def convolution(before: int, width: int) -> int:
    return 9 * before * width + width + 2 * width


@pytest.mark.parametrize(("network", "depth", "layer"), WORKED)
def test_layers_widths_and_strides(network, depth, layer):
    rule = ll.AugLocal.imagenet(depth=depth)
    selected = rule.selected(site(network, layer))
    expected = WORKED[network, depth, layer]
    assert selected == [found for found, _, _ in expected]
    assert [DIMS[network][found] for found in selected] == [width for _, width, _ in expected]
    parts = list(auxiliary(network, layer))
    if network == "vgg13":
        pools = [isinstance(part, nn.MaxPool2d) for part in parts[: len(parts) - 8]]
        built = [2 if i and pools[i - 1] else 1 for i, pool in enumerate(pools) if not pool]
        assert all(part[0].stride == (1, 1) for part in parts[: len(pools)] if isinstance(part, nn.Sequential))
    else:
        looking = "conv1" if network == "resnet34" else "conv2"
        built = [getattr(part, looking).stride[0] for part in parts[: len(selected)]]
    assert built == [stride for _, _, stride in expected]


@pytest.mark.parametrize(("network", "depth", "layer"), WORKED)
def test_parameters(network, depth, layer):
    expansion = 4 if network == "resnet101" else 1
    before = DIMS[network][layer] * (expansion if layer else 1)
    expected = 0
    for _, width, stride in WORKED[network, depth, layer]:
        if network == "vgg13":
            expected, before = expected + convolution(before, width), width
        else:
            block = bottleneck if network == "resnet101" else basic
            expected, before = expected + block(before, width, stride), expansion * width
    if network == "vgg13":
        expected += 2 * (512 * 512 + 512 + 2 * 512) + 512 * 1000 + 1000
    else:
        expected += 512 * expansion * 1000 + 1000
    assert sum(p.numel() for p in auxiliary(network, layer).parameters()) == expected


@pytest.mark.parametrize("network", DIMS)
def test_widths_of_the_backbone(network):
    expansion = 4 if network == "resnet101" else 1
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


def test_a_pyramid_is_refused():
    with pytest.raises(ll.LocalLearnError, match=r"ImageNetAugLocal: tau=0\.5.*no pyramid"):
        ll.ImageNetAugLocal(tau=0.5)

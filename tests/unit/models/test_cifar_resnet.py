"""CIFAR ResNets: sizes, names, starting weights, and their chains."""

import pytest
import torch
from torch import nn

import locallearn as ll

NETWORKS = {  # name: parameters with 10 classes, layers, blocks per stage
    "resnet20": (272_474, 10, 3),
    "resnet32": (466_906, 16, 5),
    "resnet44": (661_338, 22, 7),
    "resnet56": (855_770, 28, 9),
    "resnet110": (1_730_714, 55, 18),
}
BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def build(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return getattr(ll.models, name)(**options)


def torchvision_names(blocks: int) -> list[str]:
    names = ["conv1.weight", *(f"bn1.{x}" for x in BN)]
    for stage in (1, 2, 3):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            for i in (1, 2):
                names += [f"{prefix}.conv{i}.weight", *(f"{prefix}.bn{i}.{x}" for x in BN)]
            if stage > 1 and block == 0:
                names += [f"{prefix}.downsample.0.weight", *(f"{prefix}.downsample.1.{x}" for x in BN)]
    return [*names, "fc.weight", "fc.bias"]


@pytest.mark.parametrize("name", NETWORKS)
def test_number_of_parameters(name):
    assert sum(p.numel() for p in build(name).parameters()) == NETWORKS[name][0]


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_keys_are_those_of_torchvision(name):
    assert sorted(build(name).state_dict()) == sorted(torchvision_names(NETWORKS[name][2]))


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_the_stem_and_the_blocks(name):
    _, layers, blocks = NETWORKS[name]
    names = list(build(name).chain().layers)
    assert len(names) == layers
    assert names == ["stem", *(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(blocks))]


def test_widths_and_strides_of_the_stages():
    model = build("resnet20")
    for stage, (width, stride) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
        for index, block in enumerate(model.get_submodule(f"layer{stage}").children()):
            assert (block.conv1.out_channels, block.conv2.out_channels) == (width, width)
            assert block.conv1.stride == (stride if index == 0 else 1,) * 2
            assert block.conv2.stride == (1, 1)
            assert block.conv1.bias is None
            assert block.conv2.bias is None


def test_shortcuts_are_option_b():
    model = build("resnet20")
    for stage in (1, 2, 3):
        for index, block in enumerate(model.get_submodule(f"layer{stage}").children()):
            if stage > 1 and index == 0:
                conv, norm = block.downsample
                assert conv.kernel_size == (1, 1)
                assert conv.stride == (2, 2)
                assert conv.bias is None
                assert isinstance(norm, nn.BatchNorm2d)
            else:
                assert block.downsample is None


@pytest.mark.parametrize("block", ["layer1.1", "layer2.0", "layer3.2"])
def test_a_block_computes_the_post_activation_residual(block):
    torch.manual_seed(1)
    block = build("resnet20").get_submodule(block).eval()
    for norm in (part for part in block.modules() if isinstance(part, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(2, block.conv1.in_channels, 8, 8)
    residual = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
    shortcut = x if block.downsample is None else block.downsample(x)
    torch.testing.assert_close(block(x.clone()), (residual + shortcut).relu())


def test_convolutions_start_normal_with_variance_2_over_kernel_area_times_outputs():
    for name, part in build("resnet110").named_modules():
        if isinstance(part, nn.Conv2d):
            expected = (2 / (part.kernel_size[0] * part.kernel_size[1] * part.out_channels)) ** 0.5
            tolerance = 5 / (2 * part.weight.numel()) ** 0.5
            assert abs(part.weight.std().item() / expected - 1) < tolerance, name
            assert abs(part.weight.mean().item()) < 5 * expected / part.weight.numel() ** 0.5, name


def test_norms_and_classifier_start_as_pytorch_starts_them():
    model = build("resnet32")
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert torch.equal(part.weight, torch.ones_like(part.weight))
            assert torch.equal(part.bias, torch.zeros_like(part.bias))
    for parameter in (model.fc.weight, model.fc.bias):
        assert parameter.abs().max() <= 64**-0.5
    assert model.fc.weight.abs().max() > 0.9 * 64**-0.5


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["resnet20", "resnet110"])
def test_the_chain_computes_what_the_model_computes(name, training):
    model = build(name).train(training)
    images = torch.randn(2, 3, 16, 16)
    chain = model.chain()
    with torch.no_grad():
        features = images
        for layer in chain.layers.values():
            features = layer(features)
        assert torch.equal(chain.classifier(features), model(images))


@pytest.mark.parametrize("name", NETWORKS)
def test_num_classes_and_in_channels(name):
    model = build(name, num_classes=7, in_channels=1)
    assert model.conv1.weight.shape == (16, 1, 3, 3)
    assert model.fc.weight.shape == (7, 64)
    assert model.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


def test_features_halve_twice():
    net = ll.localize(build("resnet20"), ll.BP(), input_shape=(3, 32, 32))
    assert list(net.chain.shapes) == [(16, 32, 32)] * 4 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3
    assert net.chain.classes == 10

"""The networks of the papers' ImageNet tables, and their CIFAR forms: layers, names, shapes, splits, leap chains."""

import functools

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn import models
from locallearn._chain.partition import partition
from locallearn._utils.registry import find, names
from locallearn.rules.mlaan_leaps import published_leap
from locallearn.training import make_model

IMAGENET = {  # name: layers, parameters with 1000 classes
    "resnet34": (17, 21_797_672),
    "resnet50": (17, 25_557_032),
    "resnet101": (34, 44_549_160),
    "resnet152": (51, 60_192_808),
    "resnext101_32x8d": (34, 88_791_336),
    "vgg13": (10, 133_053_736),
    "vgg19": (16, 143_678_248),
    "mobilenet_v2": (19, 3_504_872),
    "efficientnet_b0": (17, 5_288_548),
    "regnet_x_400mf": (23, 5_495_976),
}
CIFAR_GRIDS = {  # height and width of the last features of a 32 x 32 image
    "resnet34": 4,
    "resnet50": 4,
    "resnet101": 4,
    "resnet152": 4,
    "resnext101_32x8d": 4,
    "vgg13": 2,
    "vgg19": 2,
    "mobilenet_v2": 4,
    "efficientnet_b0": 2,
    "regnet_x_400mf": 8,
}
CLASSES = {"vgg13": "vgg13_bn", "vgg19": "vgg19_bn"}  # torchvision's name where it is another


def without_weights(make, **options) -> nn.Module:
    """RegNet computes its widths with tensors, so that it must be made on the CPU."""
    if "regnet" in make.__name__:
        return make(**options).to("meta")
    with torch.device("meta"):
        return make(**options)


@functools.cache
def on_meta(name: str) -> nn.Module:
    return without_weights(getattr(models, name))


def chain_of(model: nn.Module, size: int) -> ll.TracedChain:
    return ll.localize(model, ll.BP(), input_shape=(3, size, size)).chain


@functools.cache
def imagenet_chain(name: str) -> ll.TracedChain:
    return chain_of(on_meta(name), 224)


@pytest.mark.parametrize("name", IMAGENET)
def test_parameters_and_names_are_torchvisions(name):
    model = on_meta(name)
    assert sum(p.numel() for p in model.parameters()) == IMAGENET[name][1]
    theirs = without_weights(getattr(models.import_torchvision().models, CLASSES.get(name, name)))
    assert {key: t.shape for key, t in model.state_dict().items()} == {
        key: t.shape for key, t in theirs.state_dict().items()
    }


@pytest.mark.parametrize("name", IMAGENET)
def test_layers_are_those_of_the_papers_for_imagenet(name):
    chain = imagenet_chain(name)
    assert len(chain) == IMAGENET[name][0]
    assert chain.shapes[-1][1:] == ((14, 14) if name.startswith("vgg") else (7, 7))
    assert chain.classes == 1000


@pytest.mark.parametrize("name", CIFAR_GRIDS)
def test_layers_are_those_of_the_papers_for_cifar(name):
    chain = chain_of(without_weights(getattr(models.cifar, name)), 32)
    assert len(chain) == IMAGENET[name][0]
    assert chain.shapes[0][1:] == (32, 32)
    assert chain.shapes[-1][1:] == (CIFAR_GRIDS[name],) * 2
    assert chain.classes == 10


@pytest.mark.parametrize("name", ["vgg13", "efficientnet_b0"])
def test_the_chain_computes_what_the_network_computes(name):
    torch.manual_seed(0)
    model = getattr(models.cifar, name)(num_classes=7, in_channels=1).eval()
    images = torch.randn(2, 1, 32, 32)
    chain = ll.localize(model, ll.BP(), input_shape=(1, 32, 32)).chain
    features = images
    with torch.no_grad():
        for layer in chain.layers:
            features = layer(features)
        assert torch.equal(chain.classifier(features), model(images))


@pytest.mark.parametrize("kind", ["", "cifar-"])
@pytest.mark.parametrize("name", IMAGENET)
def test_each_has_a_name_on_the_command_line(name, kind):
    found = find("models", f"{kind}{name.replace('_', '-')}")
    assert found is getattr(models.cifar if kind else models, name)


def test_the_poolings_of_vgg_begin_the_next_layer():
    chain = imagenet_chain("vgg13")
    assert [(shape[0], shape[1]) for shape in chain.shapes] == [
        *([(64, 224)] * 2 + [(128, 112)] * 2 + [(256, 56)] * 2 + [(512, 28)] * 2 + [(512, 14)] * 2)
    ]
    assert [isinstance(layer[0], nn.MaxPool2d) for layer in chain.layers] == [False, False] + [True, False] * 4


HPFF_4 = (4, ["layer3.0", "layer3.9", "layer3.17"])
HPFF_8 = (8, ["layer2.0", "layer3.1", "layer3.5", "layer3.9", "layer3.13", "layer3.17", "layer3.21"])
MAN_PP_4 = (4, ["layer2.2", "layer3.8", "layer3.16"])
SPLITS = {  # network, split: number of modules, last layers of some
    ("resnet101", "infopro-2"): (2, ["layer2.0"]),
    ("resnext101_32x8d", "infopro-resnext-2"): (2, ["layer2.2"]),
    ("resnet152", "infopro-2"): (2, ["layer2.5"]),
    ("resnet101", "hpff-4"): HPFF_4,
    ("resnet152", "hpff-4"): HPFF_4,
    ("resnext101_32x8d", "hpff-4"): HPFF_4,
    ("resnet101", "hpff-8"): HPFF_8,
    ("resnet152", "hpff-8"): HPFF_8,
    ("resnext101_32x8d", "hpff-8"): HPFF_8,
    ("resnet101", "man-2"): (2, ["layer2.0"]),
    ("resnet152", "man-2"): (2, ["layer2.5"]),
    ("resnext101_32x8d", "man-2"): (2, ["layer2.0"]),
    ("resnet101", "man++-4"): MAN_PP_4,
    ("resnet152", "man++-4"): (4, ["layer2.6", "layer3.13", "layer3.25"]),
    ("resnext101_32x8d", "man++-4"): MAN_PP_4,
    ("resnet50", "hpff-4"): (4, ["layer2.0", "layer3.0", "layer3.5"]),
    ("resnet50", "man-2"): (2, ["layer2.0"]),
    ("resnet34", "mlaan-17"): (16, ["layer1.0", "layer1.1"]),
    ("resnet101", "mlaan-34"): (33, ["layer1.0"]),
    ("resnet152", "mlaan-51"): (50, ["layer1.0"]),
}


@pytest.mark.parametrize(("network", "split"), SPLITS)
def test_published_splits_for_imagenet(network, split):
    chain = imagenet_chain(network)
    found = partition(split, chain.names)
    count, first = SPLITS[network, split]
    assert len(found) == count
    ends = [chain.names[end] for end in found.ends]
    assert ends[: len(first)] == first
    assert ends[-1] == "layer4.2"


LEAPS = {  # network, module: blocks of the leap chain; None where a published list holds blocks before the module's end
    ("resnet34", 0): "2.0 2.1 3.0 4.0 4.2",
    ("resnet34", 3): "2.1 3.0 4.0 4.2",
    **{("resnet34", module): None for module in (4, 5, 6)},
    ("resnet34", 7): "3.1 4.0 4.1",
    **{("resnet34", module): None for module in range(8, 15)},
    ("resnet101", 0): "2.0 3.0 4.0 4.2",
    ("resnet101", 6): "3.0 4.0 4.1",
    ("resnet101", 29): "4.0 4.1",
    ("resnet101", 30): "4.1 4.2",
    ("resnet101", 31): None,
    ("resnet152", 2): "2.0 3.0 4.0 4.2",
    ("resnet152", 10): "3.0 4.0 4.1",
    ("resnet152", 46): "4.0 4.1",
    ("resnet152", 47): "4.1 4.2",
    ("resnet152", 48): None,
}


@pytest.mark.parametrize(("network", "module"), LEAPS)
def test_published_leap_chains_for_imagenet(network, module):
    chain = imagenet_chain(network)
    expected = LEAPS[network, module]
    found = published_leap(chain, module + 1, module, len(chain) - 1)  # the stem is in the first module
    names_of = None if found is None else " ".join(chain.names[i].removeprefix("layer") for i in found)
    assert names_of == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [("torchvision:resnet18", "ResNet"), ("timm:resnet10t", "ResNet"), ("timm:vit_tiny_patch16_224", "")],
)
def test_any_network_of_torchvision_or_timm_by_its_name(name, kind):
    model = make_model(name, classes=7, image_shape=(3, 64, 64))
    assert kind in type(model).__name__
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_grey_images_get_a_first_convolution_of_their_own():
    for name in ("torchvision:resnet18", "timm:resnet10t"):
        assert make_model(name, classes=2, image_shape=(1, 32, 32))(torch.zeros(2, 1, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("torchvision:resnet1", "torchvision has no network 'resnet1'; did you mean 'resnet18'"),
        ("timm:vit_tiny", "timm has no network 'vit_tiny'; did you mean"),
        ("tim:resnet18", "library='tim' is not valid; did you mean 'timm'"),
    ],
)
def test_an_unknown_network_is_refused_with_the_nearest_name(name, sentence):
    with pytest.raises(ll.LocalLearnError, match=sentence):
        make_model(name, classes=2, image_shape=(3, 32, 32))


def test_a_vit_for_small_images():
    model = models.cifar.vit_tiny(num_classes=7, in_channels=1)
    chain = ll.localize(model, ll.BP(), input_shape=(1, 32, 32)).chain
    assert len(chain) == 13
    assert set(chain.shapes) == {(192, 8, 8)}
    assert chain.classes == 7
    assert find("models", "cifar-vit-tiny") is models.cifar.vit_tiny


def test_all_names_can_be_found():
    assert all(callable(find("models", name)) for name in names("models"))

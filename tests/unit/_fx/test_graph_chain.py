"""Any network as a chain: discovered layers, named layers, refusals."""

import copy
import functools
import itertools

import pytest
import torch
import torch.nn.functional as F
from chains import assert_same_as, chain
from tiny_networks import TINY, timm, tiny, torchvision
from torch import nn

import locallearn as ll
from locallearn import models
from locallearn._fx.graph_chain import layers_from_code


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    library, _, own = name.partition(":")
    return models.from_library(library, own, num_classes=7, image_size=32)


DISCOVERED = {  # network: layers; the first names; the last name
    "torchvision:resnet18": (9, ["stem", "layer1.0", "layer1.1", "layer2.0"], "layer4.1"),
    "torchvision:mobilenet_v3_small": (13, ["features.0", "features.1"], "features.12"),
    "torchvision:convnext_tiny": (22, ["features.0", "features.1.0", "features.1.1"], "features.7.2"),
    "torchvision:squeezenet1_1": (9, ["features.0", "features.3"], "features.12"),
    "timm:resnet10t": (5, ["stem", "layer1.0", "layer2.0"], "layer4.0"),
    "timm:convnext_atto": (13, ["stem", "stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0"], None),
    "timm:efficientnet_b0": (17, ["stem", "blocks.0.0", "blocks.1.0", "blocks.1.1"], "blocks.6.0"),
    "timm:vit_tiny_patch16_224": (13, ["patch_embed", "blocks.0"], "blocks.11"),
    "timm:mixer_s32_224": (9, ["stem", "blocks.0"], "blocks.7"),
}


@pytest.mark.parametrize("name", DISCOVERED)
def test_discovered_layers_compute_what_the_network_computes(name):
    model = make(name)
    keys = list(model.state_dict())
    found = chain(model)
    count, first, last = DISCOVERED[name]
    assert len(found) == count
    assert list(found.names[: len(first)]) == first
    assert last is None or found.names[-1] == last
    assert list(model.state_dict()) == keys
    assert_same_as(model, found)


@pytest.mark.parametrize("name", TINY)
def test_layers_of_every_family_are_discovered(name):
    model = tiny(name)
    found = chain(model, shape=(3, 16, 16))
    assert len(found) == TINY[name][1]
    assert_same_as(model, found, (3, 16, 16))


@pytest.mark.filterwarnings("ignore:PFF as in the official code:locallearn.LocalLearnWarning")
@pytest.mark.parametrize("build", [torchvision.models.resnet50, functools.partial(timm.create_model, "convnext_tiny")])
def test_the_five_lines_on_others_networks(build):
    model = build()
    keys = list(model.state_dict())
    net = ll.localize(model, ll.HPFF(ll.DGL()), modules=4, input_shape=(3, 64, 64))
    losses = net.backward(torch.randn(2, 3, 64, 64), torch.tensor([0, 1]))
    assert net.model is model
    assert list(model.state_dict()) == keys
    assert {name.partition(".")[0] for name in net.state_dict()} == {"model", "auxiliary"}
    assert losses.shape == (6,)
    assert all(p.grad is not None for p in model.parameters())


NAMED = {  # patterns: names of the layers
    ("conv1", r"layer\d\.\d+"): ["conv1", *(f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1))],
    ("layer1", "layer3"): ["layer1", "layer3"],
    ("layer3", "layer1"): ["layer1", "layer3"],
    ("maxpool", "layer4.1"): ["maxpool", "layer4.1"],
    (r"layer[24]",): ["layer2", "layer4"],
}


@pytest.mark.parametrize("patterns", NAMED)
def test_named_modules_end_layers(patterns):
    model = make("torchvision:resnet18")
    found = chain(model, list(patterns))
    assert list(found.names) == NAMED[patterns]
    assert_same_as(model, found)


def test_normalisation_and_what_needs_no_weights_belong_to_the_layer_before():
    found = chain(make("torchvision:resnet18"), ["conv1", "layer2"])
    assert [type(part).__name__ for part in found.layers[0]] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert [type(part).__name__ for part in found.classifier] == [
        *("BasicBlock", "BasicBlock"),  # layer3 and layer4 are not looked into
    ] or isinstance(found.classifier[0], nn.Sequential)


def test_neighbours_that_are_named_each_keep_their_own():
    parts = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(4, 4, 3), nn.Dropout(0.3))
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * 28 * 28, 5))
    found = chain(model, ["0", "1", "2", "3", "4"])
    assert [type(layer).__name__ for layer in found.layers[:4]] == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout"]
    assert [type(part).__name__ for part in found.layers[4]] == ["Conv2d", "Dropout"]
    assert_same_as(model, found)


def test_layers_can_be_named_of_a_network_that_says_its_own():
    model = ll.models.resnet20()
    found = chain(model, ["layer1", "layer2.1", "layer3"])
    assert list(found.names) == ["layer1", "layer2.1", "layer3"]
    assert_same_as(model, found)


class Skipping(nn.Module):
    """The first features are used again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.three = (nn.Conv2d(i, 4, 3, padding=1) for i in (3, 4, 4, 4))
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(self.three(x + self.two(self.one(x))).mean((2, 3)))


def test_a_boundary_that_two_tensors_cross_is_refused_with_a_remedy():
    with pytest.raises(ll.LocalLearnError) as error:
        chain(Skipping(), ["stem", "one"])
    assert str(error.value) == (
        "Skipping is no chain after 'one': besides its output, 'stem' is used later, for add(); a single tensor passes"
        " after 'three': name that in layers=[...], or give the network a method chain() that returns"
        " locallearn.Chain(layers={name: module, ...}, classifier=module)."
    )


def test_modules_within_a_skip_are_one_layer():
    model = Skipping()
    found = chain(model)
    assert list(found.names) == ["stem", "two", "three"]
    assert_same_as(model, found)


class NoChain(Skipping):
    def forward(self, x):
        pooled = x.mean((2, 3))
        x = self.three(self.two(self.one(self.stem(x))))
        return self.fc(x.mean((2, 3))) + pooled.sum(1, keepdim=True)


def test_a_network_without_any_cut_is_refused():
    with pytest.raises(
        ll.LocalLearnError, match=r"NoChain is no chain after 'stem'.*mean\(\) is used later.*chain\(\)"
    ):
        chain(NoChain())


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (["layer9"], r"no module matches 'layer9'; did you mean 'layer"),
        (["layer(1"], "no regular expression"),
        (["layer1", "layer1.0"], "'layer1.0' is inside 'layer1', and both are named"),
        (["layer1", "fc"], "'fc' gives the network's output"),
        ([], "give a list of names"),
        ("layer9", r"no module matches 'layer9'; did you mean 'layer"),
        (["layer1.0.conv1"], "no chain after 'layer1.0.conv1'.*single tensor passes after 'layer1.1'"),
        (["layer1.0.relu"], r"calls 'layer1.0.relu' 2 times"),
    ],
)
def test_bad_names_are_refused(layers, sentence):
    with pytest.raises(ll.LocalLearnError, match=sentence):
        chain(make("torchvision:resnet18"), layers)


class Functional(nn.Module):
    """The way many people write: functions, sizes, dropout by the mode, a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.register_buffer("shift", torch.rand(1, 8, 1, 1))
        self.fc1, self.fc2 = nn.Linear(8 * 64, 16), nn.Linear(16, 5)

    def forward(self, x):
        batch, _, height, _ = x.shape
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = x * self.scale + self.shift if height > 4 else x
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.dropout(x.view(batch, -1), 0.5, self.training)
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.5, training=self.training))


def test_functions_sizes_and_modes():
    torch.manual_seed(0)
    model = Functional()
    found = chain(model)
    assert list(found.names) == ["conv1", "conv2"]
    assert list(found.shapes) == [(8, 16, 16), (8, 16, 16)]
    assert_same_as(model, found)


def test_a_networks_own_parameters_and_buffers_are_shared():
    model = Functional()
    net = ll.localize(model, ll.DGL(), input_shape=(3, 32, 32))
    assert any(p is model.scale for p in net.local_modules[0].parameters())
    net.double()
    assert any(b is model.shift for b in net.local_modules[0].buffers())
    state = {name: torch.rand_like(value) for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(net.eval().logits(images)[-1], model(images))
    net.train().backward(images, torch.tensor([0, 1]))
    assert model.scale.grad.abs().sum() > 0


def test_a_copy_of_the_net_has_its_own():
    net = ll.localize(Functional(), ll.DGL(), input_shape=(3, 32, 32))
    twin = copy.deepcopy(net)
    assert any(p is twin.model.scale for p in twin.local_modules[0].parameters())
    twin.double()
    assert any(b is twin.model.shift for b in twin.local_modules[0].buffers())
    assert net.model.shift.dtype == torch.float32


class Noisy(nn.Module):
    """Its own code has two operations more in training."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

    def forward(self, x):
        x = self.one(x)
        if self.training:
            x = x + torch.randn_like(x)
        return self.fc(self.two(x.relu()).mean((2, 3)))


def test_code_with_an_operation_more_in_training_is_left_out_in_evaluation():
    model = Noisy()
    net = ll.localize(model, ll.AugLocal(depth=2), input_shape=(3, 8, 8))
    images = torch.randn(2, 3, 8, 8)
    for twin in (net, copy.deepcopy(net)):
        assert not torch.equal(twin.train().logits(images)[-1], twin.logits(images)[-1])
        assert torch.equal(twin.eval().logits(images)[-1], model.eval()(images))
        assert torch.equal(twin.logits(images)[0], twin.logits(images)[0])


def test_a_layer_runs_in_the_mode_of_the_module_whose_code_it_is():
    model = Noisy()
    first = ll.localize(model, ll.DGL(), input_shape=(3, 8, 8)).local_modules[0]
    images = torch.randn(2, 3, 8, 8)
    model.one.eval()
    assert not torch.equal(first(images), first(images))
    model.train(mode=False).one.train()
    assert torch.equal(first(images), first(images))


class OnlyInTraining(Noisy):
    def forward(self, x):
        return super().forward(x if self.training or x.sum().item() > 0 else -x)


def test_a_network_that_is_no_chain_in_evaluation_is_told():
    with pytest.warns(ll.LocalLearnWarning, match="OnlyInTraining is no chain of the same layers in evaluation"):
        chain(OnlyInTraining(), shape=(3, 8, 8))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)

    def forward(self, x):
        for _ in range(len(x)):
            x = self.conv(x)[:, :3]
        return self.fc(F.pad(x.mean((2, 3)), (0, 1)))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)

    def forward(self, x):
        x = self.conv(x)
        return [self.fc(x.mean((2, 3))), x]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Counting, r"the length of .* depends on the number of images"),
        (Pair, "it returns a list, not one tensor"),
    ],
)
def test_code_that_cannot_be_traced_is_refused_with_the_reason(model, reason):
    with pytest.raises(ll.LocalLearnError, match=rf"(?s)cannot be traced: .*{reason}.*chain\(\)"):
        chain(model(), shape=(3, 64, 64))


def test_tracing_leaves_the_network_alone():
    model = make("torchvision:resnet18")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mode = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    layers_from_code(model, (3, 32, 32), None)
    assert torch.equal(state, torch.get_rng_state())
    assert [part.training for part in model.modules()] == mode
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Block(nn.Sequential):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))


class OfBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Block(3, 4), nn.Sequential(Block(4, 8), Block(8, 8)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5))

    def forward(self, x):
        return self.head(self.body(x))


def test_a_class_that_is_used_more_than_once_is_a_layer():
    model = OfBlocks()
    found = chain(model)
    assert list(found.names) == ["body.0", "body.1.0", "body.1.1"]
    assert all(isinstance(layer, Block) for layer in found.layers)
    assert_same_as(model, found)


class Perceptron(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        widths = [12, *[8] * layers, 5]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        x = x.flatten(1)
        for index, linear in enumerate(self.linears):
            x = linear(x).relu() if index + 1 < len(self.linears) else linear(x)
            x = self.norm(x) if index == 0 and len(self.linears) > 1 else x
        return x


def test_the_last_linear_layer_of_a_perceptron_classifies():
    model = Perceptron(3)
    found = chain(model, shape=(3, 2, 2))
    assert list(found.names) == ["stem", "linears.1", "linears.2"]
    assert found.classifier is model.linears[3]
    assert [type(part).__name__ for part in found.layers[0]] == ["Call", "Linear", "Call", "BatchNorm1d"]
    assert_same_as(model, found, (3, 2, 2))


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(5, 12))

    def forward(self, x):
        return F.linear(x.flatten(1), self.weight)


@pytest.mark.parametrize("model", [functools.partial(Perceptron, 0), Bare])
def test_a_network_of_one_layer_has_nothing_to_train_locally(model):
    with pytest.raises(ll.LocalLearnError, match="has no layer before its classifier: nothing to train locally"):
        chain(model(), shape=(3, 2, 2))

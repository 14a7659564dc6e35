"""The chain: how an nn.Sequential is cut, and what is refused."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import locallearn as ll
from networks import mlp


def localized(model: nn.Module, shape=(3, 12, 12), rule=None, **options) -> ll.LocalNet:
    return ll.localize(model, rule or ll.BP(), input_shape=shape, **options)


def conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels), nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, channels)
        )

    def forward(self, x):
        return x + self.body(x)


def pooled(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


SEQUENTIALS = {  # a network; the children in each layer; the children in the classifier
    "without norm": (
        lambda: nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 6), nn.ReLU(), *pooled(6)),
        [["0", "1"], ["2", "3"]],
        ["4", "5", "6"],
    ),
    "with norm": (
        lambda: nn.Sequential(
            conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 6), nn.GroupNorm(2, 6), nn.ReLU(), *pooled(6)
        ),
        [["0", "1", "2"], ["3", "4", "5"]],
        ["6", "7", "8"],
    ),
    "norm and activation before the first convolution": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), conv(3, 4), nn.PReLU(4), conv(4, 6), *pooled(6)),
        [["0", "1", "2", "3"], ["4"]],
        ["5", "6", "7"],
    ),
    "pools between layers": (
        lambda: nn.Sequential(conv(3, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 6), nn.ReLU(), *pooled(6)),
        [["0", "1", "2"], ["3", "4"]],
        ["5", "6", "7"],
    ),
    "several linear layers behind the flatten": (
        lambda: nn.Sequential(
            conv(3, 4), nn.ReLU(), conv(4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(288, 8), nn.ReLU(), nn.Linear(8, 5)
        ),
        [["0", "1"], ["2", "3"]],
        ["4", "5", "6", "7"],
    ),
    "trailing pool without linear": (
        lambda: nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        [["0", "1"], ["2"]],
        ["3", "4"],
    ),
    "nested blocks": (
        lambda: nn.Sequential(conv(3, 4), Residual(4), nn.ReLU(), nn.Sequential(conv(4, 6), nn.ReLU()), *pooled(6)),
        [["0"], ["1", "2"], ["3"]],
        ["4", "5", "6"],
    ),
    "MLP with leading flatten": (
        lambda: mlp(widths=(12, 10), inputs=3 * 12 * 12),
        [["0", "1", "2"], ["3", "4"]],
        ["5"],
    ),
    "an activation used twice": (
        lambda: (lambda relu: nn.Sequential(conv(3, 4), relu, conv(4, 6), relu, *pooled(6)))(nn.ReLU()),
        [["0", "1"], ["2", "3"]],
        ["4", "5", "6"],
    ),
}


@pytest.mark.parametrize("name", SEQUENTIALS)
def test_a_sequential_is_cut_before_each_child_with_weights(name):
    build, layers, classifier = SEQUENTIALS[name]
    model = build()
    chain = localized(model).chain
    found = [[child for child in layer.modules() if child in set(model.children())] for layer in chain.layers]
    assert found == [[model.get_submodule(child) for child in children] for children in layers]
    assert [c for c in chain.classifier.modules() if c in set(model.children())] == [
        model.get_submodule(child) for child in classifier
    ]


@pytest.mark.parametrize("name", SEQUENTIALS)
def test_the_chain_of_a_sequential_computes_what_it_computes(name):
    torch.manual_seed(0)
    model = SEQUENTIALS[name][0]()
    chain = localized(model).chain
    images = torch.randn(2, 3, 12, 12)
    features = images
    for layer in chain.layers:
        features = layer(features)
    torch.testing.assert_close(chain.classifier(features), model(images), rtol=0, atol=0)


def test_layers_are_named_after_their_first_weighted_child():
    model = nn.Sequential(
        OrderedDict(
            first=conv(3, 4),
            act=nn.ReLU(),
            second=conv(4, 6),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            out=nn.Linear(6, 5),
        )
    )
    assert list(localized(model).chain.names) == ["first", "second"]
    assert len(localized(model, rule=ll.DGL(), modules=["first"]).partition) == 2


def test_vectors_count_as_maps_of_one_pixel():
    chain = localized(mlp(widths=(12, 10), inputs=3 * 12 * 12)).chain
    assert list(chain.shapes) == [(12, 1, 1), (10, 1, 1)]
    assert list(chain.vectors) == [True, True]
    assert chain.classes == 5


@pytest.mark.parametrize("rule", [ll.DGL(), ll.AugLocal(depth=2)], ids=["DGL", "AugLocal"])
def test_an_mlp_trains_locally(rule):
    net = localized(mlp(widths=(12, 12, 12), inputs=3 * 12 * 12), rule=rule)
    losses = net.backward(torch.randn(4, 3, 12, 12), torch.tensor([0, 1, 2, 3]))
    assert len(losses) == len(net.objectives) > 1
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.model.parameters() if p.dim() > 1)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4)

    def forward(self, x):
        return self.conv(x), x


class Plain(nn.Module):
    """No nn.Sequential, and it does not say its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = conv(3, 4), conv(4, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.out(self.second(self.first(x)).mean((2, 3)))


class Choosing(Plain):
    """What it does depends on what is in the images."""

    def forward(self, x):
        return super().forward(x if x.mean() > 0 else -x)


class Forgetful(Plain):
    def chain(self):
        return ll.Chain(layers={"first": self.first}, classifier=nn.Sequential(*pooled(4)[:2], self.out))


def test_a_child_that_returns_a_tuple_is_named_with_a_remedy():
    with pytest.raises(ll.LocalLearnError, match=r"(?s)layer '1'.*tuple.*[Ww]rap"):
        localized(nn.Sequential(conv(3, 4), Pair(), conv(4, 4), *pooled(4)))


def test_a_network_that_cannot_be_traced_is_named_with_a_remedy():
    with pytest.raises(ll.LocalLearnError, match=r"(?s)forward code of Choosing cannot be traced.*chain\(\)"):
        localized(Choosing())


def test_a_chain_that_forgets_a_parameter_names_it():
    with pytest.raises(ll.LocalLearnError, match=r"(?s)Forgetful.*second\.weight.*chain\(\)"):
        localized(Forgetful())


def test_a_sequential_without_weights_is_refused():
    with pytest.raises(ll.LocalLearnError, match="weights"):
        localized(nn.Sequential(nn.ReLU(), nn.Flatten()))


@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 4, 5), *pooled(4)),
        lambda: nn.Sequential(conv(3, 4), nn.MaxPool2d(4), nn.MaxPool2d(4), conv(4, 4), *pooled(4)),
    ],
    ids=["kernel", "pool"],
)
def test_an_image_too_small_for_the_network_is_refused_by_layer(model):
    with pytest.raises(ll.LocalLearnError, match=r"layer '\d'.*(too small|large enough)"):
        localized(model(), shape=(3, 6, 6))


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(ll.LocalLearnError, match="input_shape"):
        localized(nn.Sequential(conv(3, 4), conv(4, 4), *pooled(4)), shape=(1, 12, 12))


def tied() -> nn.Sequential:
    model = nn.Sequential(conv(3, 4), conv(4, 4), nn.ReLU(), conv(4, 4), *pooled(4))
    model[3].weight = model[1].weight
    return model


def test_a_parameter_shared_between_modules_is_refused_by_name():
    with pytest.raises(ll.LocalLearnError, match=r"'1\.weight'.*shared"):
        localized(tied(), rule=ll.DGL())


def used_twice() -> nn.Sequential:
    shared = conv(4, 4)
    return nn.Sequential(conv(3, 4), shared, nn.ReLU(), shared, *pooled(4))


def test_a_child_used_in_two_modules_is_refused_by_name():
    with pytest.raises(ll.LocalLearnError, match=r"'1\.weight'.*shared"):
        localized(used_twice(), rule=ll.DGL())


def test_a_child_used_twice_works_under_backpropagation():
    model = used_twice()
    net = localized(model)
    features = images = torch.randn(2, 3, 12, 12)
    for layer in net.chain.layers:
        features = layer(features)
    torch.testing.assert_close(net.chain.classifier(features), model(images), rtol=0, atol=0)


def test_a_parameter_shared_within_a_module_or_under_backpropagation_is_allowed():
    assert len(localized(tied(), rule=ll.DGL(), modules=["0"]).objectives) == 2
    assert len(localized(tied(), rule=ll.BP()).objectives) == 1
    assert len(localized(tied(), rule=ll.DGL(), modules=1).objectives) == 1

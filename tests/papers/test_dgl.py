"""DGL (Belilovsky et al., ICML 2020): its heads in the AugLocal comparison (AugLocal, Table 6), and its own."""

import functools
from math import ceil

import pytest
import torch
from torch import nn

import locallearn as ll
from networks import count


@functools.cache
def heads(rule: ll.DGL, shape: tuple[int, int, int]) -> tuple[nn.Module, ...]:
    """Heads after the stem, the first block of 32 channels, and the first of 64."""
    net = ll.localize(ll.models.resnet20(), rule, modules=["stem", "layer2.0", "layer3.0"], input_shape=shape)
    return tuple(objective.auxiliary for objective in net.objectives[:-1])


def sizes_seen(head: nn.Module, kind: type[nn.Module], features: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes that enter the modules of a kind."""
    seen: list[tuple[int, ...]] = []
    hooks = [
        part.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[1:])))
        for part in head.modules()
        if isinstance(part, kind)
    ]
    head.logits(features)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(("index", "expected"), [(0, 9_962), (1, 37_834), (2, 147_338)])
def test_table6_parameters_of_a_head(index, expected):
    assert count(heads(ll.DGL(), (3, 32, 32))[index]) == expected


@pytest.mark.parametrize(("depth", "blocks"), [(32, 5), (110, 18)])
def test_parameters_of_all_heads(depth, blocks):
    net = ll.localize(getattr(ll.models, f"resnet{depth}")(), ll.DGL(), input_shape=(3, 32, 32))
    assert count(net.auxiliary) == (1 + blocks) * 9_962 + blocks * 37_834 + (blocks - 1) * 147_338
    assert len(net.objectives) == 3 * blocks + 1


# three conv1x1 with BN; three Linear(4C, 4C) with bias and BN; the classifier
@pytest.mark.parametrize(("index", "c"), [(0, 16), (1, 32), (2, 64)])
def test_parameters_of_the_original_head(index, c):
    expected = 3 * (c * c + 2 * c) + 3 * ((4 * c) ** 2 + 4 * c + 2 * 4 * c) + 4 * c * 10 + 10
    assert count(heads(ll.DGL.original(), (3, 32, 32))[index]) == expected


@pytest.mark.parametrize(("rule", "hidden", "bias"), [(ll.DGL(), 2, False), (ll.DGL.original(), 3, True)])
def test_table6_layers_of_a_head(rule, hidden, bias):
    for head, channels in zip(heads(rule, (3, 32, 32)), (16, 32, 64), strict=True):
        convolutions = [part for part in head.modules() if isinstance(part, nn.Conv2d)]
        linears = [part for part in head.modules() if isinstance(part, nn.Linear)]
        assert [(c.in_channels, c.out_channels, c.kernel_size, c.bias) for c in convolutions] == [
            (channels, channels, (1, 1), None)
        ] * 3
        assert [(x.in_features, x.out_features) for x in linears] == [(4 * channels,) * 2] * hidden + [
            (4 * channels, 10)
        ]
        assert [x.bias is not None for x in linears] == [bias] * hidden + [True]
        assert sum(isinstance(part, nn.BatchNorm2d) for part in head.modules()) == 3
        assert sum(isinstance(part, nn.BatchNorm1d) for part in head.modules()) == hidden


@pytest.mark.parametrize(
    ("side", "features", "pooled"),
    [
        (32, (32, 16, 8), (8, 4, 2)),
        (96, (96, 48, 24), (24, 12, 6)),
        (33, (33, 17, 9), (9, 5, 3)),
        (20, (20, 10, 5), (5, 3, 2)),
    ],
)
@pytest.mark.parametrize("rule", [ll.DGL(), ll.DGL.original()], ids=["comparison", "original"])
def test_convolutions_see_a_quarter_of_the_size_rounded_up(rule, side, features, pooled):
    for index, channels in enumerate((16, 32, 64)):
        head = heads(rule, (3, side, side))[index]
        x = torch.randn(2, channels, features[index], features[index])
        assert sizes_seen(head, nn.Conv2d, x) == [(channels, pooled[index], pooled[index])] * 3
        assert sizes_seen(head, nn.Linear, x)[0] == (4 * channels,)


def test_height_and_width_are_pooled_each_by_itself():
    head = heads(ll.DGL(), (3, 32, 12))[0]
    assert sizes_seen(head, nn.Conv2d, torch.randn(2, 16, 32, 12)) == [(16, 8, 3)] * 3


@pytest.mark.parametrize(("rule", "inputs"), [(ll.DGL(), (64, 32, 64)), (ll.DGL.original(), (64, 128, 256))])
def test_a_small_map_is_pooled_to_no_more_than_it_has_unless_original(rule, inputs):
    shapes = ((16, 8, 8), (32, 4, 4), (64, 2, 2))  # a quarter of which is 2, 1 and 1
    for head, shape, expected in zip(heads(rule, (3, 8, 8)), shapes, inputs, strict=True):
        assert sizes_seen(head, nn.Linear, torch.randn(2, *shape))[0] == (expected,)


def test_on_vgg_maps_of_14_pixels_are_pooled_to_4_where_the_official_code_pools_to_7_by_their_width():
    net = ll.localize(ll.models.cifar.vgg13(), ll.DGL(hidden=0), input_shape=(3, 224, 224))
    official = {64: 224, 128: 112, 256: 56, 512: 28}  # the size that a width stands for
    maps, grids = [], []
    for layer, objective in enumerate(net.objectives[:-1]):
        channels, side, _ = net.chain.shapes[layer]
        seen = sizes_seen(objective.auxiliary, nn.Conv2d, torch.zeros(2, channels, side, side))
        assert seen == [(channels, ceil(side / 4), ceil(side / 4))] * 3
        maps.append(side)
        grids.append((ceil(side / 4), ceil(official[channels] / 4)))
    assert maps == [224, 224, 112, 112, 56, 56, 28, 28, 14]
    assert grids == [(56, 56)] * 2 + [(28, 28)] * 2 + [(14, 14)] * 2 + [(7, 7)] * 2 + [(4, 7)]


def test_every_module_but_the_last_gets_a_head_of_weight_one():
    net = ll.localize(ll.models.resnet20(), ll.DGL(), input_shape=(3, 16, 16))
    assert [(o.first, o.last, o.weight) for o in net.objectives] == [(i, i, 1.0) for i in range(10)]
    assert len({id(o.auxiliary) for o in net.objectives}) == 10


def test_the_head_computes_what_the_paper_says():
    head = heads(ll.DGL(), (3, 32, 32))[0].train()
    convolutions = [part for part in head.modules() if isinstance(part, nn.Conv2d)]
    *hidden, classifier = [part for part in head.modules() if isinstance(part, nn.Linear)]
    features = torch.randn(4, 16, 32, 32)
    x = nn.functional.avg_pool2d(features, 4)
    for convolution in convolutions:
        x = nn.functional.batch_norm(convolution(x), None, None, training=True).relu()
    x = nn.functional.avg_pool2d(x, 4).flatten(1)
    for linear in hidden:
        x = nn.functional.batch_norm(linear(x), None, None, training=True).relu()
    torch.testing.assert_close(head.logits(features), classifier(x))


def test_convolutions_of_a_head_start_like_those_of_the_backbone():
    for head, channels in zip(heads(ll.DGL(), (3, 32, 32)), (16, 32, 64), strict=True):
        weights = torch.cat(
            [p.flatten() for part in head.modules() if isinstance(part, nn.Conv2d) for p in part.parameters()]
        )
        assert abs(weights.std().item() / (2 / channels) ** 0.5 - 1) < 5 / (2 * weights.numel()) ** 0.5

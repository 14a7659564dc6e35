"""MAN++: sizes on its splits, the stem's head, the schedule, the learnable scale, and its head of DGL."""

import functools

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._chain.partition import partition
from locallearn._nn.ema import EmaCopy
from locallearn.rules.infopro import ContrastiveHead
from networks import SMALL, batch, count, parts, resnet20

BASE = ll.InfoPro.published("hpff")
SPLITS = [
    "man++-8",
    "man++-16",
    pytest.param("man++-32", marks=pytest.mark.slow),
    pytest.param("man++-55", marks=pytest.mark.slow),
]


@functools.cache
def manpp(split: str, rule: ll.Rule = BASE) -> ll.LocalNet:
    model = ll.models.resnet32() if split in ("man++-8", "man++-16") else ll.models.resnet110()
    return ll.localize(model, ll.MANPP(rule), modules=split, input_shape=(3, 32, 32))


# modules; LB, decoder and head; LB and the head of DGL; EMA
SIZES = {
    "man++-8": (9, 672_926, 5_313_232, 213_632),
    "man++-16": (16, 1_378_769, 10_033_942, 465_792),
    "man++-32": (33, 2_885_654, 21_383_744, 975_104),
    "man++-55": (55, 5_000_868, 36_174_940, 1_729_600),
}


@pytest.mark.parametrize("split", SPLITS)
def test_auxiliary_parameters(split):
    modules, infopro, dgl, ema = SIZES[split]
    for rule, expected in ((BASE, infopro), (ll.DGL.manpp(), dgl)):
        net = manpp(split, rule)
        assert len(net.partition) == modules
        assert count(net.auxiliary) == expected + modules - 1  # a scale for each module but the last
        copies = parts(net, EmaCopy)
        assert sum(p.numel() for copied in copies for p in copied.sources[0].parameters()) == ema


@pytest.mark.parametrize("split", SPLITS)
def test_weights_begin_at_the_stem_and_then_count_stages_of_k_modules_without_it(split):
    net, published = manpp(split), int(split.removeprefix("man++-"))
    stem, *others = net.objectives[:-1]
    assert stem.auxiliary.auxiliary.weights == (5, 0.5)
    for objective in others:
        following = net.chain.names[net.partition.ends[objective.last] + 1]
        r = int(following[5]) / (published - 2)
        assert objective.auxiliary.auxiliary.weights == pytest.approx((5 * (1 - r), 0.5 * (1 - r)))


def test_the_stem_has_infopros_default_head_and_the_others_that_of_the_setting():
    stem, other, *_ = manpp("man++-8").objectives
    decoder, task = stem.auxiliary.auxiliary.terms
    assert (count(decoder), count(task)) == (2_091, 25_408)
    assert isinstance(task, ContrastiveHead)
    assert [type(task) for _, task in [other.auxiliary.auxiliary.terms]] == [ll.Head]


def test_the_stem_under_dgl_has_dgls_head():
    assert manpp("man++-8", ll.DGL.manpp()).objectives[0].auxiliary.auxiliary.loss is nn.functional.cross_entropy


@pytest.mark.parametrize(("index", "expected"), [(0, 635_146), (1, 637_194), (2, 641_290)])
def test_parameters_and_layers_of_its_head_of_dgl(index, expected):
    net = ll.localize(resnet20(), ll.DGL.manpp(), modules=["stem", "layer2.0", "layer3.0"], input_shape=(3, 32, 32))
    head = net.objectives[index].auxiliary
    assert count(head) == expected
    width = 16 * 2**index
    convolutions, linears = parts(head, nn.Conv2d), parts(head, nn.Linear)
    assert [(c.in_channels, c.out_channels, c.bias) for c in convolutions] == [(width, 128, None)] + [
        (128, 128, None)
    ] * 2
    sides = [(128, 512), (512, 512), (512, 512), (512, 10)]
    assert [(x.in_features, x.out_features) for x in linears] == sides
    assert all(x.bias is not None for x in linears)
    seen = []
    convolutions[0].register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[2:])))
    head.logits(torch.randn(2, width, 32 >> index, 32 >> index))
    assert seen == [(8, 8)]


@pytest.mark.parametrize("setting", ["grid", "channels", "units"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_sizes_of_a_head_of_dgl_below_1_are_refused(setting, value):
    with pytest.raises(ll.LocalLearnError, match=rf"{setting}=.* (from 1|not a whole number or None)"):
        ll.DGL(**{setting: value})


def small(rule: ll.Rule) -> ll.LocalNet:
    return ll.localize(resnet20().double(), rule, modules=["stem", "layer1.2"], input_shape=SMALL)


def test_the_scale_begins_where_man_is_and_is_learnt():
    net, plain = small(ll.MANPP(ll.Pooling())), small(ll.MAN(ll.Pooling()))
    images, labels = batch()
    assert count(net.auxiliary) == count(plain.auxiliary) + 2
    assert torch.equal(net.backward(images.double(), labels), plain.backward(images.double(), labels))
    front = net.objectives[0].auxiliary.front
    assert front.scale.grad.abs() > 0
    front.scale.data.fill_(0.25)
    x = torch.randn(2, 16, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(front(x), 0.25 * front.bias(x) + 1.75 * front.ema(x))


def test_a_step_on_all_layers_trains_the_stem_by_both_its_losses():
    net = ll.localize(resnet20(), ll.MANPP(BASE), input_shape=SMALL)
    assert net.backward(*batch()).isfinite().all()
    assert all(p.grad is not None for p in net.parameters())


def test_a_wrapper_between_passes_the_stems_head_on():
    net = ll.localize(resnet20(), ll.MANPP(ll.PFF(BASE)), modules=["stem"], input_shape=SMALL)
    assert len(parts(net.objectives[0].auxiliary, ContrastiveHead)) == 1


def test_on_imagenet_the_splits_of_two_modules_are_those_of_man():
    for blocks in ((3, 4, 23, 3), (3, 8, 36, 3)):
        names = ["conv1", *(f"layer{s}.{b}" for s, n in enumerate(blocks, 1) for b in range(n))]
        assert partition("man++-2", names).ends == partition("man-2", names).ends


@pytest.mark.parametrize(
    "wrong", [lambda: ll.MANPP(ll.MAN(ll.DGL())), lambda: ll.MANPP(ll.BP()), lambda: ll.MANPP(ll.DGL(), momentum=1.1)]
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ll.LocalLearnError):
        wrong()

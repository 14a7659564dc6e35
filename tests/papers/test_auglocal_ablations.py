"""AugLocal's ablations: Table 5 (other constructions), Table 10 (step by step to DGL), Table 13 (InfoPro's loss)."""

import functools
from itertools import pairwise

import pytest
import torch
from torch import nn

import locallearn as ll
from locallearn._objectives.decoders import Decoder
from locallearn.rules import table10
from networks import SMALL, batch, count, mlp, parts, resnet20

IMAGE = (3, 32, 32)


@functools.cache
def resnet(depth: int, rule: ll.Rule) -> ll.LocalNet:
    return ll.localize(getattr(ll.models, f"resnet{depth}")(), rule, input_shape=IMAGE)


def blocks(auxiliary: nn.Module) -> list[tuple[int, int, int]]:
    """Input width, output width and stride of the residual blocks of a head."""
    kind = type(ll.models.resnet20().layer1[0])
    return [(b.conv1.in_channels, b.conv2.out_channels, b.conv1.stride[0]) for b in parts(auxiliary, kind)]


WIDTHS = {
    20: [16] * 4 + [32] * 3 + [64] * 3,
    32: [16] * 6 + [32] * 5 + [64] * 5,
    110: [16] * 19 + [32] * 18 + [64] * 18,
}


def hidden(depth: int, d: int, tau: float) -> list[int]:
    """Layers of each auxiliary network: Eq. 3 as in the official code."""
    k, modules = d - 1, len(WIDTHS[depth]) - (d - 1)
    ratios = [i * tau / (modules - 2) for i in range(modules - 1)]
    return [max(1, round(k * (1 - r) + r)) for r in ratios]


@pytest.mark.parametrize(("depth", "d"), [(32, 2), (32, 4), (32, 6), (110, 3)])
def test_table5_sequential_takes_the_layers_that_come_next(depth, d):
    net = resnet(depth, ll.SequentialAugLocal(depth=d))
    widths = WIDTHS[depth]
    layers = hidden(depth, d, 0.5)
    assert len(net.objectives) == len(layers) + 1
    for layer, k in enumerate(layers):
        chosen = widths[layer : layer + k + 1]
        expected = [(a, b, 2 if b > a else 1) for a, b in pairwise(chosen)]
        assert blocks(net.objectives[layer].auxiliary) == expected


@pytest.mark.parametrize("downsample", [False, True])
@pytest.mark.parametrize(("depth", "d", "tau"), [(32, 4, 0.5), (32, 6, 0.0), (110, 3, 0.5)])
def test_table5_repetitive_repeats_the_modules_last_layer(depth, d, tau, downsample):
    net = resnet(depth, ll.RepetitiveAugLocal(depth=d, tau=tau, downsample=downsample))
    for layer, k in enumerate(hidden(depth, d, tau)):
        width = WIDTHS[depth][layer]
        strides = [2 if downsample and i == 0 else 1 for i in range(k)]
        assert blocks(net.objectives[layer].auxiliary) == [(width, width, stride) for stride in strides]


@pytest.mark.parametrize("rule", [ll.SequentialAugLocal, ll.RepetitiveAugLocal, ll.ConvolutionalAugLocal])
@pytest.mark.parametrize("d", [2, 4])
def test_table5_all_constructions_have_auglocals_modules(rule, d):
    net, auglocal = (ll.localize(resnet20(), r(depth=d), input_shape=SMALL) for r in (rule, ll.AugLocal))
    assert net.partition == auglocal.partition
    assert [len(parts(o.auxiliary, nn.BatchNorm1d)) for o in net.objectives] == [
        len(parts(o.auxiliary, nn.BatchNorm1d)) for o in auglocal.objectives
    ]
    assert net.backward(*batch()).isfinite().all()
    assert [logits.shape for logits in net.eval().logits(batch()[0])] == [(6, 10)] * len(net.objectives)


def macs(auxiliary: ll.Auxiliary, features: torch.Tensor) -> int:
    """Convolutions and linear layers, for one image."""
    total = 0

    def add(layer, args, output):
        nonlocal total
        positions = output[0].numel() // output.shape[1]
        total += layer.weight.numel() * positions

    hooks = [part.register_forward_hook(add) for part in parts(auxiliary, (nn.Conv2d, nn.Linear))]
    auxiliary.eval().logits(features)
    for hook in hooks:
        hook.remove()
    return total


def features_at(net: ll.LocalNet, objective: ll.Objective) -> torch.Tensor:
    return torch.zeros(1, *net.chain.shapes[net.partition.ends[objective.last]])


@functools.cache
def macs_of_sites(rule: ll.Rule) -> list[int]:
    net = resnet(110, rule)
    with torch.no_grad():
        return [macs(o.auxiliary, features_at(net, o)) for o in net.objectives[:-1]]


@pytest.mark.parametrize("kernel", [1, 3])
def test_table5_convolutions_cost_what_auglocals_layers_do(kernel):
    expected = macs_of_sites(ll.AugLocal(depth=3))
    found = macs_of_sites(ll.ConvolutionalAugLocal(depth=3, kernel=kernel))
    assert len(found) == len(expected) == 52
    assert [f / e for f, e in zip(found, expected, strict=True)] == pytest.approx([1.0] * 52, abs=0.02)


def test_auglocals_own_cost_is_that_of_its_table():
    # layer 0: two blocks, 16 -> 32 on 16 x 16 and 32 -> 64 on 8 x 8, each with a shortcut, and 64 x 10
    first = 256 * (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32) + 64 * (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64) + 640
    assert macs_of_sites(ll.AugLocal(depth=3))[0] == first


@pytest.mark.parametrize("kernel", [1, 3])
def test_table5_convolutions_have_auglocals_depth_and_strides(kernel):
    net, auglocal = (resnet(110, r) for r in (ll.ConvolutionalAugLocal(depth=3, kernel=kernel), ll.AugLocal(depth=3)))
    for objective, other in zip(net.objectives[:-1], auglocal.objectives[:-1], strict=True):
        convolutions = parts(objective.auxiliary, nn.Conv2d)
        assert [c.kernel_size for c in convolutions] == [(kernel, kernel)] * 2
        assert [c.stride[0] for c in convolutions] == [stride for _, _, stride in blocks(other.auxiliary)]
        assert len(parts(objective.auxiliary, nn.BatchNorm2d)) == len(parts(objective.auxiliary, nn.ReLU)) == 2
        a, b = (c.out_channels for c in convolutions)
        (_, wide, _), (_, wider, _) = blocks(other.auxiliary)
        assert a / b == pytest.approx(wide / wider, rel=0.02)  # widened by one multiplier


@pytest.mark.parametrize("kernel", [0, 2, -1])
def test_even_kernels_are_refused(kernel):
    with pytest.raises(ll.LocalLearnError, match=f"kernel={kernel}"):
        ll.ConvolutionalAugLocal(kernel=kernel)


def test_convolutions_over_vectors_are_refused():
    with pytest.raises(ll.LocalLearnError, match="needs maps"):
        ll.localize(mlp(), ll.ConvolutionalAugLocal(depth=2), input_shape=(3, 6, 6))


def at_each_stage(rule: ll.Rule) -> list[list[ll.Objective]]:
    """Objectives after 16, 32 and 64 channels."""
    net = resnet(110, rule)
    found: list[list[ll.Objective]] = [[], [], []]
    for objective in net.objectives[:-1]:
        found[(16, 32, 64).index(net.chain.width(net.partition.ends[objective.last]))].append(objective)
    return found


# Table 10, stages 1 and 2: None for the uniform selection, else strides of the five repeated blocks
REPEATED = {
    "AugLocal": (None, None),
    "repeat and downsample in stage 2": (None, [2, 1, 1, 1, 1]),
    "repeat in stage 2": (None, [1, 1, 1, 1, 1]),
    "repeat and downsample in stages 1 and 2": ([2, 1, 1, 1, 1], [2, 1, 1, 1, 1]),
    "repeat in stages 1 and 2, downsample in 1": ([2, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
}


def test_table10_has_seven_rows_in_the_papers_order():
    assert list(table10()) == [*REPEATED, "3x3 convolutions in all stages", "DGL"]


@pytest.mark.parametrize("row", REPEATED)
def test_table10_rows_that_repeat(row):
    uniform = at_each_stage(ll.AugLocal(depth=6))
    for number, objectives in enumerate(at_each_stage(table10()[row])):
        strides = (*REPEATED[row], None)[number]
        assert len(objectives) == len(uniform[number])
        for objective, plain in zip(objectives, uniform[number], strict=True):
            width = 16 << number
            expected = blocks(plain.auxiliary) if strides is None else [(width, width, s) for s in strides]
            assert blocks(objective.auxiliary) == expected
            assert count(objective.auxiliary) == (
                count(plain.auxiliary)
                if strides is None
                else 5 * 2 * (9 * width * width + 2 * width)
                + (strides[0] == 2) * (width**2 + 2 * width)
                + width * 10
                + 10
            )


def test_table10_row_of_3x3_convolutions():
    """AP-16C3-16C3-16C3-16C3-16C3-AP-10FC, and so with 32 and 64."""
    stages = at_each_stage(table10()["3x3 convolutions in all stages"])
    for width, side, objectives in zip((16, 32, 64), (32, 16, 8), stages, strict=True):
        for objective in objectives:
            convolutions = parts(objective.auxiliary, nn.Conv2d)
            found = [(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in convolutions]
            assert found == [(width, width, (3, 3), (1, 1), (1, 1))] * 5
            (linear,) = parts(objective.auxiliary, nn.Linear)
            assert (linear.in_features, linear.out_features) == (width, 10)
            pooled = []
            hook = convolutions[0].register_forward_pre_hook(lambda _, args: pooled.append(args[0].shape[2]))  # noqa: B023
            objective.logits(torch.zeros(2, width, side, side))
            hook.remove()
            assert pooled == [side // 4]


def test_table10_row_of_dgl():
    """AP-16C1-16C1-16C1-AP-64FC-64FC-10FC, and so with 32 and 64."""
    for width, objectives in zip((16, 32, 64), at_each_stage(table10()["DGL"]), strict=True):
        for objective in objectives:
            kernels = [(c.out_channels, c.kernel_size) for c in parts(objective.auxiliary, nn.Conv2d)]
            assert kernels == [(width, (1, 1))] * 3
            assert [x.out_features for x in parts(objective.auxiliary, nn.Linear)] == [4 * width, 4 * width, 10]


def test_rules_by_stage_take_a_rule_for_each():
    rules = (ll.Pooling(), ll.DGL(), ll.PredSim())
    net = ll.localize(resnet20(), ll.ByStage(rules=rules), input_shape=SMALL)
    assert net.backward(*batch()).isfinite().all()
    stages = [0] * 4 + [1] * 3 + [2] * 2
    for objective, stage in zip(net.objectives[:-1], stages, strict=True):
        plain = ll.localize(resnet20(), rules[stage], input_shape=SMALL).objectives[objective.last]
        assert count(objective.auxiliary) == count(plain.auxiliary)


def test_rules_by_stage_that_do_not_fit_are_refused():
    with pytest.raises(ll.LocalLearnError, match="a stage 3"):
        ll.localize(resnet20(), ll.ByStage(rules=(ll.DGL(), ll.DGL())), input_shape=SMALL)
    for rules, told in (((), "for each stage"), ((ll.DGL,), "is not a list, each an instance of Rule")):
        with pytest.raises(ll.LocalLearnError, match=told):
            ll.ByStage(rules=rules)


DECODERS = {16: 2_091, 32: 3_819, 64: 7_275}


@pytest.mark.parametrize("d", [2, 4])
def test_table13_infopros_loss_adds_a_decoder_to_auglocals_network(d):
    net, plain = (resnet(32, rule) for rule in (ll.InfoProLoss(ll.AugLocal(depth=d)), ll.AugLocal(depth=d)))
    assert net.partition == plain.partition
    for objective, other in zip(net.objectives[:-1], plain.objectives[:-1], strict=True):
        width = net.chain.width(net.partition.ends[objective.last])
        assert count(objective.auxiliary) - count(other.auxiliary) == DECODERS[width]
        assert blocks(objective.auxiliary) == blocks(other.auxiliary)
        assert len(parts(objective.auxiliary, Decoder)) == 1


def test_table13_weights_go_linearly_over_the_modules_that_remain():
    rule = ll.InfoProLoss(ll.AugLocal(depth=4), lambda1=(6.0, 0.0), lambda2=(0.5, 1.0))
    net = resnet(32, rule)  # 13 modules
    found = [objective.auxiliary.weights for objective in net.objectives[:-1]]
    assert found == [pytest.approx((6 * (1 - i / 11), 0.5 + 0.5 * i / 11)) for i in range(12)]
    with pytest.raises(ll.LocalLearnError, match="lambda1"):
        ll.InfoProLoss(ll.AugLocal(), lambda1=(-1.0, 0.0))


def test_table13_loss_is_the_sum_of_both():
    rule = ll.InfoProLoss(ll.AugLocal(depth=3), lambda1=(2.0, 2.0), lambda2=(3.0, 3.0))
    net = ll.localize(resnet20(), rule, modules=4, input_shape=SMALL)
    images, labels = batch()
    found = net.backward(images, labels)[0]
    features = net.local_modules[0](images)
    decoder, own = net.objectives[0].auxiliary.terms
    guess = torch.sigmoid(decoder.outputs(features, images))
    target = (images * 0.25 + 0.5).clamp(0, 1)
    expected = 2 * nn.functional.binary_cross_entropy(guess, target)
    expected += 3 * nn.functional.cross_entropy(own.logits(features), labels)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("depth", [2, 8, 24])
def test_eq3_last_site_of_man_repeats_one_layer(depth):
    rule = ll.RepetitiveAugLocal(depth=depth, tau=1.0, fidelity="paper")
    net = ll.localize(resnet20(), ll.MAN(rule), input_shape=SMALL)
    found = [len(blocks(auxiliary.auxiliary)) for auxiliary in net.auxiliary]
    assert found[-2:] == [1, 1]  # d_min - 1, after the last layers but one and after the last
    assert found == sorted(found, reverse=True)

"""PredSim (Nøkland & Eidnes, ICML 2019): its local loss, in the AugLocal comparison (Table 6) and in its own form."""

import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import locallearn as ll
from locallearn.cost import forward_macs
from locallearn.rules.predsim import PoolToGrid, SimilarityMatching, pool_kernel
from networks import SMALL, batch, count, mlp, resnet20


@functools.cache
def auxiliaries(rule: ll.PredSim, shape: tuple[int, int, int]) -> tuple[nn.Module, ...]:
    """Auxiliary networks after the stem (16 channels), the first block of 32 and the first of 64."""
    net = ll.localize(ll.models.resnet20(), rule, modules=["stem", "layer2.0", "layer3.0"], input_shape=shape)
    return tuple(objective.auxiliary for objective in net.objectives[:-1])


def only(network: nn.Module, kind: type[nn.Module]) -> nn.Module:
    found = [part for part in network.modules() if isinstance(part, kind)]
    assert len(found) == 1
    return found[0]


# image | channels | kernel | padding | output grid | features
POOLING = [
    (32, 16, (8, 4), (0, 0), (4, 8), 512),
    (32, 32, (4, 4), (0, 0), (4, 4), 512),
    (32, 64, (4, 2), (0, 0), (2, 4), 512),
    (96, 16, (32, 16), (0, 0), (3, 6), 288),
    (96, 32, (16, 16), (0, 0), (3, 3), 288),
    (96, 64, (16, 8), (8, 0), (2, 3), 384),
]


@pytest.mark.parametrize(("image", "channels", "kernel", "padding", "grid", "features"), POOLING)
def test_table6_pooling_of_the_classifier(image, channels, kernel, padding, grid, features):
    side = image * 16 // channels
    assert pool_kernel((channels, side, side), 512) == kernel
    auxiliary = auxiliaries(ll.PredSim(), (3, image, image))[(16, 32, 64).index(channels)]
    linear, pool = only(auxiliary, nn.Linear), only(auxiliary, PoolToGrid)
    assert linear.in_features == features == channels * math.prod(grid)
    maps = torch.randn(2, channels, side, side)
    pooled = pool(maps)
    assert pooled.shape == (2, channels, *grid)
    torch.testing.assert_close(pooled, F.avg_pool2d(maps, kernel, padding=padding))
    torch.testing.assert_close(auxiliary.logits(maps), linear(pooled.flatten(1)))


@pytest.mark.parametrize("shape", [(16, 8, 8), (64, 17, 13), (8, 3, 50), (600, 5, 5), (16, 32, 1), (5, 1, 1)], ids=str)
@pytest.mark.parametrize("inputs", [1, 64, 512, 4096])
def test_the_kernel_is_doubled_in_turn_until_few_enough_are_left(shape, inputs):
    channels, height, width = shape
    steps = [(1, 1)]
    while channels * -(-height // steps[-1][0]) * -(-width // steps[-1][1]) > inputs and steps[-1] < (64, 64):
        h, w = steps[-1]
        steps.append((2 * h, w) if h == w else (h, 2 * w))
    left = [channels * -(-height // h) * -(-width // w) for h, w in steps]
    found = pool_kernel(shape, inputs)
    assert found in steps
    if left[-1] <= inputs:
        assert found == steps[-1]
    else:  # even one value for each channel is too many
        assert -(-height // found[0]) == -(-width // found[1]) == 1


@pytest.mark.parametrize("shape", [(3, 17, 13), (3, 50, 9), (3, 100, 100)], ids=str)
def test_the_classifier_takes_what_any_image_size_leaves(shape):
    net = ll.localize(resnet20(), ll.PredSim(), modules=["stem", "layer2.0", "layer3.0"], input_shape=shape)
    assert net.eval().backward(*batch(2, shape)).isfinite().all()


def test_parameters_on_resnet32():
    net = ll.localize(ll.models.resnet32(), ll.PredSim(), input_shape=(3, 32, 32))
    expected = [2_304] * 6 + [9_216] * 5 + [36_864] * 4
    assert [count(only(o.auxiliary, nn.Conv2d)) for o in net.objectives[:-1]] == expected
    assert [count(only(o.auxiliary, nn.Linear)) for o in net.objectives[:-1]] == [5_130] * 15
    assert count(net.auxiliary) == sum(expected) + 15 * 5_130


def cosines(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(1, keepdims=True)
    unit = centred / (1e-8 + np.sqrt((centred**2).sum(1, keepdims=True)))
    return np.clip(unit @ unit.T, -1, 1)


def convolved(maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """conv3x3 with padding 1."""
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = maps.shape[2:]
    windows = (
        (weight[:, :, i, j], padded[:, :, i : i + height, j : j + width]) for i, j in np.ndindex(*weight.shape[2:])
    )
    return sum(np.einsum("oc,nchw->nohw", kernel, window) for kernel, window in windows)


@pytest.mark.parametrize("beta", [0.99, 0.3, 0.0, 1.0])
def test_the_loss_is_the_sum_of_cross_entropy_and_similarity_matching(beta):
    net = ll.localize(resnet20().double(), ll.PredSim(beta=beta), modules=["layer1.0", "layer2.1"], input_shape=SMALL)
    images, labels = batch(8)
    features = images.double()
    found = net.backward(features, labels)
    for index, objective in enumerate(net.objectives[:-1]):
        with torch.no_grad():
            features = net.local_modules[index](features)
        maps = features.numpy()
        linear, conv = only(objective.auxiliary, nn.Linear), only(objective.auxiliary, nn.Conv2d)
        weight, bias, kernel = (p.detach().numpy() for p in (linear.weight, linear.bias, conv.weight))
        high, wide = pool_kernel(maps.shape[1:], 512)
        pooled = maps.reshape(8, maps.shape[1], maps.shape[2] // high, high, -1, wide).mean((3, 5)).reshape(8, -1)
        logits = pooled @ weight.T + bias
        entropy = np.mean([np.log(np.exp(z).sum()) - z[y] for z, y in zip(logits, labels, strict=True)])
        deviations = convolved(maps, kernel).reshape(8, maps.shape[1], -1).std(2, ddof=1)
        similarity = ((cosines(deviations) - cosines(np.eye(10)[labels])) ** 2).mean()
        expected = (1 - beta) * entropy + beta * similarity
        assert found[index].item() == pytest.approx(expected, rel=1e-5)  # the sum of losses is in float32
        assert objective.weight == 1


def test_both_parts_send_their_gradient_into_the_module():
    images, labels = batch(8)
    gradients = {}
    for beta in (0.0, 1.0, 0.25):
        net = ll.localize(resnet20(), ll.PredSim(beta=beta), modules=["layer1.0"], input_shape=SMALL)
        net.backward(images, labels)
        gradients[beta] = net.model.conv1.weight.grad
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())
    torch.testing.assert_close(gradients[0.25], 0.75 * gradients[0.0] + 0.25 * gradients[1.0], rtol=1e-3, atol=1e-5)


def test_similarity_matching_needs_no_labels_gradient_and_starts_like_the_backbone():
    for auxiliary, channels in zip(auxiliaries(ll.PredSim(), (3, 32, 32)), (16, 32, 64), strict=True):
        conv = only(auxiliary, nn.Conv2d)
        assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.padding) == (channels,) * 2 + (
            (3, 3),
            (1, 1),
        )
        assert conv.bias is None
        expected = (2 / (9 * channels)) ** 0.5
        assert abs(conv.weight.std().item() / expected - 1) < 5 / (2 * conv.weight.numel()) ** 0.5


def test_the_original_has_a_larger_classifier_that_starts_at_zero():
    for auxiliary, features in zip(auxiliaries(ll.PredSim.original(), (3, 32, 32)), (4096,) * 3, strict=True):
        linear = only(auxiliary, nn.Linear)
        assert linear.in_features == features
        assert torch.equal(linear.weight, torch.zeros_like(linear.weight))
    assert only(auxiliaries(ll.PredSim(), (3, 32, 32))[0], nn.Linear).weight.abs().max() > 0


@pytest.mark.parametrize(
    ("rule", "modules", "weight"),
    [
        (ll.PredSim(), 3, 1.0),
        (ll.PredSim(), 1, 1.0),
        (ll.PredSim.original(), 3, 0.01),
        (ll.PredSim.original(), 2, 0.01),
        (ll.PredSim.original(), 1, 1.0),
        (ll.PredSim(beta=0.75, weigh_output=True), 3, 0.25),
    ],
)
def test_only_the_originals_own_output_is_weighed(rule, modules, weight):
    net = ll.localize(resnet20(), rule, modules=modules, input_shape=SMALL)
    assert [o.weight for o in net.objectives] == [*[1.0] * (modules - 1), pytest.approx(weight)]
    assert [(o.first, o.last) for o in net.objectives] == [(i, i) for i in range(modules)]


def test_the_weight_of_the_output_reaches_its_gradient_and_not_its_loss():
    images, labels = batch(8)
    nets = [
        ll.localize(resnet20(), rule, modules=2, input_shape=SMALL) for rule in (ll.PredSim(), ll.PredSim.original())
    ]
    plain, weighed = (net.backward(images, labels)[-1] for net in nets)
    assert torch.equal(plain, weighed)
    torch.testing.assert_close(nets[1].model.fc.weight.grad, 0.01 * nets[0].model.fc.weight.grad)


def test_one_module_is_backpropagation_bit_for_bit():
    images, labels = batch()
    nets = [ll.localize(resnet20(), rule, modules=1, input_shape=SMALL) for rule in (ll.BP(), ll.PredSim.original())]
    losses = [net.backward(images, labels) for net in nets]
    assert torch.equal(*losses)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_vectors_are_compared_after_a_linear_layer_without_bias():
    net = ll.localize(mlp(), ll.PredSim(beta=0.5), input_shape=(3, 6, 6))
    auxiliary = net.objectives[0].auxiliary
    shapes = [(x.in_features, x.out_features, x.bias is None) for x in auxiliary.modules() if isinstance(x, nn.Linear)]
    assert sorted(shapes) == [(12, 5, False), (12, 12, True)]
    linear, same = sorted((x for x in auxiliary.modules() if isinstance(x, nn.Linear)), key=lambda x: x.out_features)
    features, labels = torch.randn(6, 12), torch.tensor([0, 1, 1, 2, 4, 4])
    with torch.no_grad():
        found = auxiliary(features, torch.empty(6, 3, 6, 6), labels).item()
        rows = same(features).double().numpy()
        expected = 0.5 * F.cross_entropy(linear(features), labels).item()
    expected += 0.5 * ((cosines(rows) - cosines(np.eye(5)[labels])) ** 2).mean()
    assert found == pytest.approx(expected, rel=1e-5)


def test_table7_forward_macs_of_resnet110():
    found = forward_macs(ll.localize(ll.models.resnet110(), ll.PredSim(), input_shape=(3, 32, 32)))
    assert round(sum(m.backbone + m.task_heads for m in found) / 1e9, 4) == 0.2534
    assert [m.task_heads for m in found] == [5_120] * 54 + [0]
    # conv3x3(C, C) on 32 x 32, 16 x 16 and 8 x 8, and the similarities of one image's C deviations and 10 classes
    widths = [16] * 19 + [32] * 18 + [64] * 17
    assert [m.others for m in found] == [9 * 16 * 16 * 32 * 32 + c + 10 for c in widths] + [0]
    assert round(sum(m.backbone + m.task_heads + m.others for m in found) / 1e9, 2) == 0.38


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -0.1}, r"beta=-0\.1"),
        ({"beta": 1.01}, r"beta=1\.01"),
        ({"beta": float("nan")}, "beta=nan"),
        ({"inputs": 0}, "inputs=0"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ll.LocalLearnError, match=message):
        ll.PredSim(**options)


def test_probabilities_are_compared_as_vectors():
    net = ll.localize(resnet20(), ll.PredSim(), modules=2, input_shape=SMALL)
    images, labels = batch()
    one_hot = torch.nn.functional.one_hot(labels, 10).float()
    assert torch.allclose(net.backward(images, one_hot), net.backward(images, labels))


@pytest.mark.parametrize(
    ("shape", "flat"), [((6, 4, 4), False), ((6, 1, 5), True), ((6, 1, 1), True), ((3, 5, 5), True), ((1, 4, 4), True)]
)
def test_maps_of_height_1_and_of_three_channels_are_compared_whole(shape, flat):
    class Bare:
        is_vector, classes = False, 4

    Bare.shape = shape
    part = SimilarityMatching(Bare)  # pyright: ignore[reportArgumentType]
    features = torch.randn(5, *shape)
    found = part.outputs(features, features)
    assert found.shape == (5, math.prod(shape) if flat else shape[0])

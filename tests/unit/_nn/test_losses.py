"""Similarity matching, the supervised contrastive loss and reconstruction, against loops over NumPy numbers."""

import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import locallearn as ll
from locallearn._nn.losses import (
    channel_deviations,
    reconstruction,
    similarity,
    similarity_matching,
    supervised_contrastive,
)
from locallearn._nn.upsampled_conv import UpsampledConv
from locallearn._objectives.decoders import Decoder, PyramidDecoder, Reconstruction

LABELS = {
    "several classes": [0, 2, 1, 0, 2, 2],
    "one class": [3, 3, 3, 3, 3, 3],
    "no two alike": [0, 1, 2, 3, 4, 5],
    "one pair": [0, 1, 2, 3, 4, 4],
}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def similarity_of(rows: np.ndarray) -> np.ndarray:
    found = np.zeros((len(rows), len(rows)))
    unit = []
    for row in rows:
        centred = row - row.sum() / len(row)
        unit.append(centred / (1e-8 + math.sqrt((centred**2).sum())))
    for i, a in enumerate(unit):
        for j, b in enumerate(unit):
            found[i, j] = min(1.0, max(-1.0, float((a * b).sum())))
    return found


def matching_of(rows: np.ndarray, labels: list[int], classes: int) -> float:
    one_hot = np.zeros((len(labels), classes))
    for i, label in enumerate(labels):
        one_hot[i, label] = 1.0
    difference = similarity_of(rows) - similarity_of(one_hot)
    return float((difference**2).sum() / len(labels) ** 2)


def contrastive_of(embeddings: np.ndarray, labels: list[int], temperature: float) -> float:
    unit = [row / math.sqrt((row**2).sum()) for row in embeddings]
    total = 0.0
    for i, anchor in enumerate(unit):
        others = [j for j in range(len(unit)) if j != i]
        scores = {j: float(anchor @ unit[j]) / temperature for j in others}
        denominator = sum(math.exp(score) for score in scores.values())
        partners = [j for j in others if labels[j] == labels[i]]
        if partners:
            total -= sum(scores[j] - math.log(denominator) for j in partners) / len(partners)
    return total / len(unit)


def reconstruction_of(logits: np.ndarray, images: np.ndarray, mean: list[float], std: list[float]) -> float:
    total = 0.0
    for index in np.ndindex(*images.shape):
        target = min(1.0, max(0.0, images[index] * std[index[1]] + mean[index[1]]))
        guess = 1 / (1 + math.exp(-logits[index]))
        total -= target * math.log(guess) + (1 - target) * math.log(1 - guess)
    return total / images.size


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (3, 4, 2, 1), (2, 7, 6, 6)], ids=str)
def test_deviations_are_of_each_channel_over_its_positions_and_unbiased(shape):
    maps = randn(*shape).numpy()
    expected = [[np.sqrt(((c - c.mean()) ** 2).sum() / (c.size - 1)) for c in image] for image in maps]
    np.testing.assert_allclose(channel_deviations(torch.tensor(maps)).numpy(), expected, rtol=1e-12)


def test_a_single_position_has_no_deviation_and_no_gradient():
    maps = randn(4, 6, 1, 1).requires_grad_()
    found = channel_deviations(maps)
    assert torch.equal(found, torch.zeros(4, 6, dtype=torch.float64))
    found.sum().backward()
    assert torch.equal(maps.grad, torch.zeros_like(maps))


@pytest.mark.parametrize("rows", [(6, 5), (1, 5), (6, 1), (5, 2)], ids=str)
def test_similarity_is_the_cosine_of_centred_rows(rows):
    found = randn(*rows)
    np.testing.assert_allclose(similarity(found).numpy(), similarity_of(found.numpy()), rtol=1e-10, atol=1e-14)
    assert similarity(found).abs().max() <= 1


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
@pytest.mark.parametrize("classes", [6, 10])
def test_similarity_matching(labels, classes):
    rows = randn(6, 8)
    found = similarity_matching(rows, torch.tensor(labels), classes)
    assert found.item() == pytest.approx(matching_of(rows.numpy(), labels, classes), rel=1e-10)


@pytest.mark.parametrize(("rows", "labels", "classes"), [((1, 4), [2], 3), ((4, 4), [0] * 4, 1), ((2, 4), [0, 1], 2)])
def test_similarity_matching_of_one_image_of_one_class_and_of_two(rows, labels, classes):
    features = randn(*rows).requires_grad_()
    loss = similarity_matching(features, torch.tensor(labels), classes)
    assert loss.item() == pytest.approx(matching_of(features.detach().numpy(), labels, classes), rel=1e-8, abs=1e-12)
    loss.backward()
    assert features.grad.isfinite().all()


def test_similar_rows_of_a_class_and_opposite_rows_of_two_cost_nothing():
    rows = torch.tensor([[1.0, 0.0], [5.0, 2.0], [0.0, 1.0]])  # centred: along (1, -1), (1, -1) and (-1, 1)
    assert similarity_matching(rows, torch.tensor([0, 0, 1]), 2).item() == pytest.approx(0, abs=1e-10)
    assert similarity_matching(rows, torch.tensor([0, 1, 1]), 2).item() == pytest.approx(4 * 4 / 9)


@pytest.mark.parametrize("shape", [(3, 5, 3, 3), (3, 5, 1, 4)], ids=str)
@pytest.mark.parametrize("labels", [[0, 0, 1], [1, 1, 1], [0, 1, 2]], ids=str)
def test_the_gradient_of_similarity_matching(shape, labels):
    def loss(features):
        return similarity_matching(channel_deviations(features), torch.tensor(labels), 4)

    assert torch.autograd.gradcheck(loss, randn(*shape).requires_grad_())


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_similarity_matching_of_constant_features_has_a_finite_gradient(constant):
    features = torch.full((4, 5, 3, 3), constant, requires_grad=True)
    loss = similarity_matching(channel_deviations(features), torch.tensor([0, 0, 1, 2]), 3)
    expected = (similarity_of(np.eye(3)[[0, 0, 1, 2]]) ** 2).mean()  # all similarities of features are 0
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_contrastive_loss(labels, temperature):
    embeddings = randn(6, 4)
    found = supervised_contrastive(embeddings, torch.tensor(labels), temperature)
    expected = contrastive_of(embeddings.numpy(), labels, temperature)
    assert found.item() == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_the_contrastive_loss_has_temperature_007_and_normalises():
    embeddings, labels = randn(5, 4), torch.tensor([0, 0, 1, 1, 0])
    scaled = embeddings * torch.tensor([1, 2, 30, 0.4, 5])[:, None]
    found = supervised_contrastive(scaled, labels).item()
    assert found == pytest.approx(contrastive_of(embeddings.numpy(), labels.tolist(), 0.07), rel=1e-10)


@pytest.mark.parametrize("labels", [[0], [0, 1], [0, 1, 2, 3]], ids=str)
def test_without_a_pair_the_contrastive_loss_is_0_and_its_gradient_too(labels):
    embeddings = randn(len(labels), 4).requires_grad_()
    loss = supervised_contrastive(embeddings, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
def test_the_gradient_of_the_contrastive_loss(labels):
    embeddings = randn(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: supervised_contrastive(x, torch.tensor(labels), 0.5), embeddings)


@pytest.mark.parametrize("loss", [similarity_matching, supervised_contrastive], ids=["similarity", "contrastive"])
@pytest.mark.parametrize(
    "labels", [torch.tensor([0.0, 1.0, 2.0]), torch.eye(3), torch.eye(3, dtype=torch.long)], ids=["float", "soft", "2d"]
)
def test_labels_that_are_no_classes_are_refused(loss, labels):
    more = (4,) if loss is similarity_matching else ()
    with pytest.raises(ll.LocalLearnError, match="one class index per image"):
        loss(randn(3, 4), labels, *more)


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 1, 2]], ids=str)
def test_similarity_matching_compares_probabilities_as_vectors(labels):
    rows, indices = randn(3, 4), torch.tensor(labels)
    one_hot = torch.nn.functional.one_hot(indices, 4)
    expected = similarity_matching(rows, indices, 4)
    assert torch.equal(similarity_matching(rows, one_hot.float(), 4), expected)
    assert not torch.equal(similarity_matching(rows, 0.7 * one_hot + 0.3 * one_hot.roll(1, 0), 4), expected)


MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def columns(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)


@pytest.mark.parametrize("spread", [0.3, 1.0, 6.0])
def test_reconstruction_compares_with_the_image_in_0_to_1(spread):
    images, logits = spread * randn(2, 3, 4, 5), randn(2, 3, 4, 5, seed=1)
    restored = images * columns(STD) + columns(MEAN)
    assert (spread < 1) == bool(((restored >= 0) & (restored <= 1)).all())  # the larger ones are clamped
    found = reconstruction(logits, images, columns(MEAN), columns(STD)).item()
    assert found == pytest.approx(reconstruction_of(logits.numpy(), images.numpy(), MEAN, STD), rel=1e-12)


def test_rounding_out_of_0_to_1_costs_as_its_end():
    white = torch.full((1, 1, 2, 2), (1.0 - 0.4) / 0.2) * (1 + 1e-5)
    found = reconstruction(torch.full((1, 1, 2, 2), 30.0), white, torch.tensor(0.4), torch.tensor(0.2))
    assert 0 <= found.item() < 1e-6


def test_the_gradient_of_reconstruction():
    images, logits = 3 * randn(1, 3, 2, 3), randn(1, 3, 2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reconstruction(x, images, columns(MEAN), columns(STD)), logits)


def test_large_logits_have_finite_losses_and_gradients():
    logits = torch.tensor([[-200.0, 200.0]]).view(1, 1, 1, 2).requires_grad_()
    loss = reconstruction(logits, torch.tensor([[1.0, 0.0]]).view(1, 1, 1, 2), torch.tensor(0.0), torch.tensor(1.0))
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert logits.grad.isfinite().all()


def pyramid() -> PyramidDecoder:
    return PyramidDecoder(6, 3, [(8, 1, 4), (5, 3, 2), (4, 3, 1)])


@pytest.mark.parametrize("decoder", [lambda: Decoder((6, 4, 3), 3), pyramid])
@pytest.mark.parametrize("side", [(8, 8), (9, 7)], ids=str)
def test_a_decoders_output_has_the_images_size_and_no_labels_are_needed(decoder, side):
    images, features = torch.randn(2, 3, *side), torch.randn(2, 6, 4, 3)
    auxiliary = Reconstruction(decoder(), (4, 3), MEAN, STD)
    logits = auxiliary.outputs(features, images)
    assert logits.shape == images.shape
    loss = auxiliary(features, images, torch.empty(0))
    assert loss.item() == pytest.approx(reconstruction_of(logits.detach().numpy(), images.numpy(), MEAN, STD), rel=1e-5)


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Corners aligned."""
    found = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        y, x = (k * (s - 1) / (n - 1) for k, s, n in zip((i, j), image.shape, (height, width), strict=True))
        a, b = min(int(y), image.shape[0] - 2), min(int(x), image.shape[1] - 2)
        v, u = y - a, x - b
        found[i, j] = (1 - v) * ((1 - u) * image[a, b] + u * image[a, b + 1]) + v * (
            (1 - u) * image[a + 1, b] + u * image[a + 1, b + 1]
        )
    return found


@pytest.mark.parametrize(("small", "size"), [((3, 4), (7, 9)), ((2, 3), (16, 19)), ((3, 4), (3, 4))], ids=str)
def test_upsampled_conv_equals_a_convolution_of_upsampled_features(small, size):
    features, layer = randn(2, 5, *small).requires_grad_(), UpsampledConv(5, 12).double()
    upsampled = torch.tensor(np.stack([[bilinear(c, *size) for c in image] for image in features.detach().numpy()]))
    expected = torch.nn.functional.conv2d(upsampled, layer.weight, layer.bias, padding=1)
    found = layer(features, size)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    weights = randn(*found.shape)
    (gradient,) = torch.autograd.grad((found * weights).sum(), layer.weight)
    (other,) = torch.autograd.grad((expected * weights).sum(), layer.weight)
    torch.testing.assert_close(gradient, other, rtol=1e-11, atol=1e-12)


def test_far_upsampled_features_are_convolved_at_their_own_size():
    layer, features = UpsampledConv(64, 12), torch.randn(2, 64, 8, 8)
    with FlopCounterMode(display=False) as counter:
        layer(features, (32, 32))
    assert counter.get_total_flops() // 2 < 2 * 9 * 64 * 12 * 32 * 32 / 7


@pytest.mark.parametrize("name", ["similarity matching", "contrastive"])
def test_ignored_images_leave_the_loss_as_if_they_were_not_there(name):
    def loss(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return supervised_contrastive(rows, labels) if name == "contrastive" else similarity_matching(rows, labels, 4)

    rows, labels = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, -100, 1, 0, -100, 1])
    kept = rows[labels >= 0].requires_grad_()
    rows = rows.requires_grad_()
    whole, without = loss(rows, labels), loss(kept, labels[labels >= 0])
    torch.testing.assert_close(whole, without)
    (gradient,), (expected,) = torch.autograd.grad(whole, rows), torch.autograd.grad(without, kept)
    torch.testing.assert_close(gradient[labels >= 0], expected)
    assert not gradient[labels < 0].any()
    alone = loss(rows[:2], labels[:2])
    assert torch.autograd.grad(alone, rows)[0].isfinite().all()

"""Minibatch CKA beside a direct computation of its equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from analysed_runs import backbone

from locallearn import LocalLearnError
from locallearn._utils.hashed_json import read_hashed_json
from locallearn.analysis import MinibatchCKA, cka


def hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """HSIC_1 as the paper writes it."""
    n, one = len(k), np.ones(len(k))
    k, l = k * (1 - np.eye(n)), l * (1 - np.eye(n))  # noqa: E741
    third = 2 / (n - 2) * one @ k @ l @ one
    return (np.trace(k @ l) + one @ k @ one * (one @ l @ one) / ((n - 1) * (n - 2)) - third) / (n * (n - 3))


def direct(batches: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """CKA of one pair of layers, from the features of each batch."""
    grams = [(x @ x.T, y @ y.T) for x, y in batches]
    cross, own, other = (
        np.mean([hsic(*pair) for pair in pairs])
        for pairs in (grams, [(k, k) for k, _ in grams], [(m, m) for _, m in grams])
    )
    return cross / np.sqrt(own * other)


def features(batches: int, *widths: int, n: int = 12, seed: int = 0) -> list[list[np.ndarray]]:
    """For each batch the features of each layer, which share a part, with a mean that is not zero."""
    draw = np.random.default_rng(seed)
    shared = draw.normal(size=(batches, n, max(widths)))
    mixes = [draw.normal(size=(max(widths), width)) for width in widths]
    return [[s @ mix + draw.normal(size=(n, mix.shape[1])) + 3 for mix in mixes] for s in shared]


def similarity(batches: list[list[np.ndarray]], others: list[list[np.ndarray]]) -> np.ndarray:
    sums = MinibatchCKA()
    for one, two in zip(batches, others, strict=True):
        sums.add(map(torch.from_numpy, one), map(torch.from_numpy, two))
    return sums.result()


def test_it_equals_the_equation_for_all_pairs_of_layers():
    one, two = features(5, 7, 20, 4), features(5, 20, 9, seed=1)
    found = similarity(one, [[a, b + c[:, :9]] for (a, b), (_, c, _) in zip(two, one, strict=True)])
    for i in range(3):
        for j in range(2):
            pairs = [(x[i], (y[0], y[1] + x[1][:, :9])[j]) for x, y in zip(one, two, strict=True)]
            assert found[i, j] == pytest.approx(direct(pairs), abs=1e-6)


def test_a_layer_is_equal_to_itself():
    batches = features(3, 7, 20)
    assert similarity(batches, batches).diagonal() == pytest.approx([1, 1], abs=1e-12)


def test_rotation_scale_and_shift_change_nothing():
    batches = features(3, 8, 8)
    rotation, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(8, 8)))
    changed = [[x @ rotation * 37 - 5 for x in layers] for layers in batches]
    assert similarity(batches, changed) == pytest.approx(similarity(batches, batches), abs=1e-5)
    assert similarity(changed, changed).diagonal() == pytest.approx([1, 1], abs=1e-12)


def test_unrelated_features_have_no_similarity_on_average():
    draw = np.random.default_rng(3)
    one, two = ([[draw.normal(size=(16, 40))] for _ in range(300)] for _ in range(2))
    assert abs(similarity(one, two)[0, 0]) < 0.01
    assert np.mean([abs(similarity([a], [b])[0, 0]) for a, b in zip(one, two, strict=True)]) > 0.05, "of single batches"


def test_batches_count_by_their_images_and_those_of_three_not_at_all():
    small, large = features(1, 6, n=8), features(1, 6, n=20, seed=2)
    tiny = features(1, 6, n=3, seed=4)
    assert similarity([*small, *tiny], [*small[::-1], *tiny]) == pytest.approx(similarity(small, small))
    other = [[x + np.random.default_rng(1).normal(size=x.shape) * 4 for x in layers] for layers in (*small, *large)]
    parts = [(8, small[0][0], other[0][0]), (20, large[0][0], other[1][0])]
    cross, own, two = (
        sum(n * hsic(a @ a.T, b @ b.T) for n, a, b in rows)
        for rows in (parts, [(n, x, x) for n, x, _ in parts], [(n, y, y) for n, _, y in parts])
    )
    assert similarity([*small, *large], other)[0, 0] == pytest.approx(cross / np.sqrt(own * two), abs=1e-6)


def test_maps_count_as_all_their_values():
    batches = features(2, 12, 12)
    maps = [[x.reshape(12, 3, 2, 2) for x in layers] for layers in batches]
    assert similarity(maps, maps) == pytest.approx(similarity(batches, batches), abs=1e-6)


def test_a_layer_with_constant_output_has_no_similarity():
    batches = features(2, 5)
    constant = [[np.ones_like(x) for x in layers] for layers in batches]
    assert np.isnan(similarity(batches, constant)).all()


def test_two_runs_layer_by_layer(runs):
    bp, dgl = backbone(runs, "bp"), backbone(runs, "dgl")
    found = cka(dgl, bp, batch=16)
    assert found.layers == found.against_layers == bp.layers
    images, _ = next(iter(bp.testing(bp.test_rows(None, seed=0), batch=40).epoch(1)))
    batches = [part.clone() for part in images.split(16)]
    outputs = [[[layer.flatten(1).double().numpy() for layer in run.outputs(b)] for b in batches] for run in (dgl, bp)]
    sums = MinibatchCKA()
    for one, two in zip(*outputs, strict=True):
        sums.add(map(torch.from_numpy, one), map(torch.from_numpy, two))
    assert found.matrix == pytest.approx(sums.result(), abs=1e-5)
    assert found.per_layer == pytest.approx(found.matrix.diagonal())
    assert cka(bp, bp).per_layer == pytest.approx([1, 1, 1], abs=1e-9)


def test_the_result_lies_in_the_run_folder_and_is_used_again(runs):
    bp, dgl = backbone(runs, "bp"), backbone(runs, "dgl")
    told, said = [], []
    options = {"images": 32, "batch": 16, "watch": lambda *step: told.append(step), "say": said.append}
    first = cka(dgl, bp, **options)
    assert told == [("CKA of dgl and bp", 1, 2), ("CKA of dgl and bp", 2, 2)]
    again = cka(backbone(runs, "dgl"), backbone(runs, "bp"), **options)
    assert (first.matrix == again.matrix).all()
    assert len(told) == 2
    assert said == []
    file = read_hashed_json(runs / "dgl" / "analysis" / "cka-vs-bp.json", remedy="")
    assert {"against", "layers", "against_layers", "per_layer", "matrix"} < file.keys()
    assert cka(dgl, bp, **options | {"images": 30}).matrix.shape == (3, 3)
    assert len(said) == 1


def test_a_value_that_is_not_a_number_is_null_in_the_file_and_comes_back(runs, monkeypatch):
    bp, dgl = backbone(runs, "bp"), backbone(runs, "dgl")
    monkeypatch.setattr(MinibatchCKA, "result", lambda self: np.array([[0.5, np.nan, 0.25]] * 3))
    for found in (cka(dgl, bp), cka(dgl, bp)):
        assert np.isnan(found.matrix[:, 1]).all()
        assert found.matrix[0, 2] == 0.25
    assert "NaN" not in (runs / "dgl" / "analysis" / "cka-vs-bp.json").read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"images": 3}, "images=3: unbiased CKA needs at least 4 images"),
        ({"images": 50}, "images=50, but there are 40 test images"),
        ({"batch": 2}, "batch=2: unbiased CKA needs at least 4 images in a batch"),
    ],
)
def test_too_few_images_are_refused(options, sentence, trained):
    with pytest.raises(LocalLearnError, match=sentence):
        cka(backbone(trained, "dgl"), backbone(trained, "bp"), **options)


def test_a_result_without_a_batch_is_refused():
    with pytest.raises(LocalLearnError, match="no batch was added, so there is no CKA"):
        MinibatchCKA().result()

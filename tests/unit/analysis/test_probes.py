"""Linear probes of a frozen backbone."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from analysed_runs import backbone, opened
from sklearn.linear_model import LogisticRegression

import locallearn as ll
from locallearn import LocalLearnError
from locallearn.analysis import Run, probes


def features(run: Run, batches) -> tuple[list[np.ndarray], np.ndarray]:
    """Pooled features of each layer, and the labels."""
    parts, labels = [], []
    for images, targets in batches.epoch(1):
        parts.append([output.mean((2, 3)).numpy() for output in run.outputs(images)])
        labels += targets.tolist()
    return [np.concatenate(layer) for layer in zip(*parts, strict=True)], np.array(labels)


def test_they_are_about_as_accurate_as_logistic_regression_to_its_optimum(runs):
    run = backbone(runs, "bp")
    found = probes(run, epochs=30, batch=20)
    train, labels = features(run, run.training(np.arange(100), batch=50))
    test, targets = features(run, run.testing(np.arange(40), batch=40))
    for accuracy, one, other in zip(found.accuracy, train, test, strict=True):
        mean, std = one.mean(0), one.std(0) + 1e-9
        best = LogisticRegression(C=100, max_iter=2000).fit((one - mean) / std, labels)
        assert accuracy == pytest.approx(best.score((other - mean) / std, targets), abs=0.11)
        assert accuracy > 0.6, "of three classes"


def test_the_backbone_stays_as_it_is(runs):
    run = backbone(runs, "bp")
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    probes(run, epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in run.net.state_dict().items())
    assert all(parameter.grad is None for parameter in run.net.parameters())


def test_equal_seeds_give_equal_probes_whatever_the_global_random_state(runs):
    first = probes(backbone(runs, "dgl"), epochs=2, images=50)
    (runs / "dgl" / "analysis" / "probes.json").unlink()
    torch.rand(5)
    state = torch.get_rng_state()
    assert probes(backbone(runs, "dgl"), epochs=2, images=50) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_the_heads_have_the_accuracy_that_training_recorded(runs):
    found = probes(opened(runs, "dgl"), epochs=1)
    row = json.loads((runs / "dgl" / "metrics.jsonl").read_text().splitlines()[-1])
    assert list(found.heads) == list(found.layers)
    assert list(found.heads.values()) == pytest.approx(row["head_accuracies"])
    assert list(found.heads.values())[-1] == pytest.approx(row["test_accuracy"])


def test_of_several_heads_of_a_module_the_one_of_the_largest_weight_counts(runs, monkeypatch):
    run = opened(runs, "dgl")
    run.net = ll.localize(run.net.model, ll.HiLo(ll.DGL()), input_shape=run.net.chain.image_shape)
    weights = [objective.weight for objective in run.net.objectives]
    monkeypatch.setitem(probes.__globals__, "evaluate", lambda *_, **__: SimpleNamespace(head_accuracies=weights))
    assert set(probes(run, epochs=1).heads.values()) == {0.999}


def test_backpropagation_has_the_classifier_alone_and_a_run_without_settings_no_head(runs):
    assert list(probes(opened(runs, "bp"), epochs=1).heads) == [opened(runs, "bp").layers[-1]]
    assert probes(backbone(runs, "dgl"), epochs=1).heads == {}


def test_the_result_lies_in_the_run_folder_and_is_used_again(runs):
    told: list[tuple[str, int, int]] = []
    watch = lambda *step: told.append(step)  # noqa: E731
    first = probes(opened(runs, "dgl"), epochs=2, batch=50, watch=watch)
    assert told == [("linear probes of dgl", done, 4) for done in (1, 2, 3, 4)]
    assert probes(opened(runs, "dgl"), epochs=2, batch=50, watch=watch) == first
    assert len(told) == 4
    values = json.loads((runs / "dgl" / "analysis" / "probes.json").read_text())
    assert values["layers"] == list(first.layers)
    assert values["accuracy"] == list(first.accuracy)
    assert values["heads"] == first.heads


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"images": 2}, "images=2 for 3 classes"),
        ({"images": 200}, "there are 100 training images"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch": 1}, "batch=1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, sentence, trained):
    with pytest.raises(LocalLearnError, match=sentence):
        probes(backbone(trained, "dgl"), **options)

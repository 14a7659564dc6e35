"""Images with several labels: binary cross entropy under any rule, and mean average precision as the accuracy."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from small_runs import StopAfter, assert_equal_runs, settings, several_labels

import locallearn as ll
from locallearn import LocalLearnError
from locallearn._nn.losses import binary_cross_entropy
from locallearn.analysis.runs import Run
from locallearn.data import Split
from locallearn.testing import Case
from locallearn.testing.step_checks import gradients_are_those_of_each_objective, one_module_is_backpropagation
from locallearn.training import Interrupted, RunFolder, evaluate_run, train
from locallearn.training.evaluation import mean_average_precision

SEVERAL = {"data": "small_runs.several_labels", "loss": "binary-cross-entropy", "epochs": 1}


@pytest.mark.parametrize("rule", [ll.DGL(), ll.MAN(ll.DGL())], ids=["dgl", "man(dgl)"])
@pytest.mark.parametrize("check", [gradients_are_those_of_each_objective, one_module_is_backpropagation])
def test_gradients_of_a_rule_and_a_wrapper_are_right_under_binary_cross_entropy(rule, check):
    check(Case(rule=rule, loss=binary_cross_entropy).quick)


def test_binary_cross_entropy_takes_one_label_as_a_vector_and_refuses_other_shapes():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    vectors = torch.nn.functional.one_hot(labels, 3)
    assert torch.equal(binary_cross_entropy(logits, labels), binary_cross_entropy(logits, vectors))
    with pytest.raises(LocalLearnError, match="give 0 or 1 for each class, of shape"):
        binary_cross_entropy(logits, vectors[:, :2])


def test_mean_average_precision_leaves_out_classes_that_no_image_has():
    draw = np.random.default_rng(0)
    scores, labels = draw.normal(size=(50, 4)), draw.integers(0, 2, (50, 4))
    labels[:, 3] = 0
    expected = average_precision_score(labels[:, :3], scores[:, :3], average="macro")
    assert mean_average_precision(torch.tensor(scores), torch.tensor(labels)) == pytest.approx(expected)
    assert mean_average_precision(torch.tensor(scores), torch.zeros(50, 4)) == 0
    assert 0 < mean_average_precision(torch.full((50, 4), torch.nan), torch.tensor(labels)) < 1


def test_training_asks_for_scikit_learn_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(LocalLearnError, match=r"sklearn is not installed: run pip install 'locallearn\[cli\]'"):
        train(settings(**SEVERAL), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_labels_are_not_taken_for_probabilities_of_one_class(tmp_path):
    with pytest.raises(
        LocalLearnError, match=r"add up to .*, but cross entropy takes one class, .* give --loss binary"
    ):
        train(settings(**SEVERAL | {"loss": "cross-entropy"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_resumes_bit_for_bit_and_is_evaluated_by_mean_average_precision(tmp_path):
    asked = settings(**SEVERAL, eval_heads=True, validation=20, mixup=0.2)
    result = train(asked, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(asked, tmp_path / "parts", watcher=StopAfter(2))
    train(asked, tmp_path / "parts", resume="last")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    row = RunFolder(tmp_path / "whole").rows()[-1]
    assert 0 < row["test_accuracy"] == row["head_accuracies"][-1] <= 1
    tested = evaluate_run(tmp_path / "whole", asked, heads=True)
    assert tested.accuracy == pytest.approx(result["test_accuracy"])
    assert list(tested.head_accuracies.values()) == pytest.approx(row["head_accuracies"])
    analysed = Run(tmp_path / "whole", settings=asked)
    analysed.testing(np.arange(4), batch=2, uses_labels=False)
    with pytest.raises(LocalLearnError, match="have several labels, and this analysis needs one class for each"):
        analysed.testing(np.arange(4), batch=2)


def test_a_loss_of_your_own_by_its_path(tmp_path):
    result = train(settings(**SEVERAL | {"loss": "small_runs.square"}), tmp_path / "run")
    assert 0 < RunFolder(tmp_path / "run").rows()[-1]["train_loss"] < 0.5
    assert result["test_accuracy"] > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"rule": ll.InfoPro.original()},
            r"images of small_runs.several_labels have several labels, but Contrastive",
        ),
        ({"loss": "bce"}, "loss='bce' is not valid"),
        ({"label_smoothing": 0.1}, "label_smoothing goes with cross-entropy"),
        ({"loss": "small_runs.nothing"}, r"loss 'small_runs.nothing' cannot be imported"),
    ],
)
def test_what_does_not_work_with_several_labels_is_refused(changes, told, tmp_path):
    with pytest.raises(LocalLearnError, match=told):
        train(settings(**SEVERAL | changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_that_are_no_vectors_of_the_classes_are_refused(tmp_path):
    data = several_labels(tmp_path)
    with pytest.raises(LocalLearnError, match="give each image a number from 0 to 1 for each of 3 classes"):
        replace(data, train=Split(images=data.train.images, labels=data.train.labels[:, :2]))

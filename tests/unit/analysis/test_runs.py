"""Runs opened for analysis: layers, images, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from analysed_runs import backbone, opened
from small_runs import stripes

from locallearn import LocalLearnError
from locallearn._utils.hashed_json import read_hashed_json, write_hashed_json
from locallearn.analysis import Run, refuse_other_images
from locallearn.data import LoaderBatches


def test_the_outputs_are_those_of_the_networks_own_forward_pass(trained):
    run = backbone(trained, "bp")
    images, _ = next(iter(run.testing(np.arange(8), batch=8).epoch(1)))
    outputs = [output.clone() for output in run.outputs(images)]
    assert len(outputs) == len(run.layers) == 3
    assert [tuple(output.shape[1:]) for output in outputs] == list(run.net.chain.shapes)
    with torch.no_grad():
        assert torch.equal(run.net.chain.classifier(outputs[-1]), run.net(images))


def test_outputs_have_no_graph_and_the_network_evaluates(trained):
    run = backbone(trained, "bp")
    images, _ = next(iter(run.testing(np.arange(8), batch=8).epoch(1)))
    assert not any(output.requires_grad for output in run.outputs(images))
    assert not run.net.training


def test_the_network_is_the_trained_one_with_and_without_heads(trained):
    alone, with_heads = backbone(trained, "dgl"), opened(trained, "dgl")
    assert len(alone.net.auxiliary) == 0
    assert len(with_heads.net.auxiliary) == 2
    for name, weights in alone.net.model.state_dict().items():
        assert torch.equal(weights, with_heads.net.model.state_dict()[name])


def test_images_are_chosen_and_not_augmented(trained):
    run, data = backbone(trained, "bp"), stripes(trained)
    for split, make in ((data.train, run.training), (data.test, run.testing)):
        rows = np.array([5, 1, 30, 8])
        batches = make(rows, batch=3)
        (images, labels), *rest = batches.epoch(1)
        expected = (torch.from_numpy(split.images[rows[:3]]).float() - 120) / 80
        assert torch.allclose(images, expected.permute(0, 3, 1, 2), atol=1e-5)
        assert labels.tolist() == split.labels[rows[:3]].tolist()
        assert len(rest) == (make == run.testing), "of the training split, no batch has a single image"
        assert [tuple(i.shape) for i, _ in make(rows, batch=3).epoch(2)] == [
            tuple(i.shape) for i, _ in batches.epoch(1)
        ]


def test_some_images_are_drawn_by_seed(trained):
    run = backbone(trained, "bp")
    assert len(run.test_rows(None, seed=0)) == 40
    assert len(run.test_rows(None, seed=0, most=10)) == 10
    assert (run.test_rows(12, seed=3) == run.test_rows(12, seed=3)).all()
    assert (run.test_rows(12, seed=3) != run.test_rows(12, seed=4)).any()
    assert len(set(run.train_rows(50, seed=0).tolist())) == 50


@pytest.mark.parametrize("images", [0, 41])
def test_a_number_of_images_that_there_is_not_is_refused(images, trained):
    with pytest.raises(LocalLearnError, match=rf"images={images}, but there are 40 test images"):
        backbone(trained, "bp").test_rows(images, seed=0)


def test_a_layer_that_is_not_there_is_refused_with_the_nearest_name(trained):
    run = backbone(trained, "bp")
    assert run.index_of(run.layers[1]) == 1
    with pytest.raises(LocalLearnError, match=rf"no layer '{run.layers[1]}x'; did you mean '{run.layers[1]}'"):
        run.index_of(f"{run.layers[1]}x")


def test_a_folder_without_a_run_or_checkpoint_is_refused(runs):
    with pytest.raises(LocalLearnError, match="holds no run"):
        Run(runs)
    (runs / "bp" / "last.pt").unlink()
    with pytest.raises(LocalLearnError, match=r"last.pt is missing; beside it lies .*best.pt"):
        backbone(runs, "bp")
    assert backbone(runs, "bp", checkpoint="best").net is not None


def test_a_damaged_checkpoint_is_refused(runs):
    file = runs / "bp" / "last.pt"
    file.write_bytes(file.read_bytes()[:-1000] + b"x" * 1000)
    with pytest.raises(LocalLearnError, match=r"last\.pt is damaged"):
        _ = backbone(runs, "bp").net


def test_runs_on_other_classes_or_data_are_refused(runs):
    for name, change in {"many": {"classes": ["one", "two"]}, "small": {"image_shape": [3, 8, 8]}}.items():
        shutil.copytree(runs / "bp", runs / name)
        card = read_hashed_json(runs / name / "data.json", remedy="")
        write_hashed_json(runs / name / "data.json", card | change)
    bp, dgl, many, small = (backbone(runs, name) for name in ("bp", "dgl", "many", "small"))
    refuse_other_images([bp, dgl])
    with pytest.raises(LocalLearnError, match=r"many has other classes than .*bp \(columns, diagonals, one differ\)"):
        refuse_other_images([bp, dgl, many])
    with pytest.raises(LocalLearnError, match=r"saw different images \(small_runs.stripes, 3 x 12 x 12; .*3 x 8 x 8\)"):
        refuse_other_images([bp, small])


def test_batches_of_which_no_images_can_be_chosen_are_refused(trained, monkeypatch):
    run = backbone(trained, "bp")
    own = LoaderBatches(torch.utils.data.DataLoader([]))
    monkeypatch.setattr(type(run.data), "testing", lambda self, feed: own)
    with pytest.raises(LocalLearnError, match=r"by LoaderBatches, in which single images cannot be chosen"):
        run.testing(np.arange(3), batch=3)

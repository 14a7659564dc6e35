"""Runs that start from the weights of an earlier one."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_runs import StopAfter, final, little, settings, timeless

import locallearn as ll
from locallearn import LocalLearnError
from locallearn.training import Interrupted, train
from locallearn.training.warm_start import WarmStart


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    train(settings(epochs=1), folder)
    return folder


@pytest.fixture(scope="module")
def backbone():
    return little(3, 3)


def started(model, path) -> tuple[dict, list[str]]:
    told = []
    WarmStart.read(path).load(model, told.append)
    return model.state_dict(), told


def test_a_run_starts_from_the_weights_of_another_and_resumes_without_it(first, tmp_path):
    asked = settings(epochs=1, init_from=tmp_path / "copy.safetensors", optimizer=ll.training.SGD(lr=0.0))
    weights = {name[10:]: value.contiguous() for name, value in final(first).items() if name.startswith("net.model.")}
    save_file(weights, asked.init_from)
    with pytest.raises(Interrupted):
        train(asked, tmp_path / "run", watcher=StopAfter(1))
    asked.init_from.unlink()
    train(asked, tmp_path / "run", resume="last")
    after = final(tmp_path / "run")
    assert all(torch.equal(after[f"net.model.{name}"], value) for name, value in weights.items() if "weight" in name)
    assert timeless(tmp_path / "run")[0]["train_loss"] < timeless(first)[0]["train_loss"]


def test_all_weights_are_loaded_where_the_classes_are_as_many(first, backbone):
    state, told = started(copy.deepcopy(backbone), first)
    assert all(torch.equal(final(first)[f"net.model.{name}"], value) for name, value in state.items())
    assert told == [f"the backbone starts from the weights of {first / 'last.pt'}."]


def test_the_classifier_starts_anew_where_classes_differ_in_number(first):
    model = little(7, 3)
    before = copy.deepcopy(model.state_dict())
    state, (told,) = started(model, first)
    assert "but for the classifier" in told
    anew = [name for name in state if torch.equal(state[name], before[name])]
    classifier = list(state)[-1].rpartition(".")[0]
    assert {f"{classifier}.weight", f"{classifier}.bias"} <= set(anew)
    assert torch.equal(state["0.weight"], final(first)["net.model.0.weight"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "other.safetensors cannot be read .*: give --init-from a run folder"),
        (b"nothing", "cannot be read"),
        ({"0.weight": torch.zeros(2)}, "lacks '0.bias', unlike the backbone: choose the --model"),
        ("a wider layer", "has '0.bias' in another shape than the backbone"),
    ],
)
def test_weights_that_do_not_fit_are_refused(content, told, backbone, tmp_path):
    file = tmp_path / "other.safetensors"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        wider = backbone.state_dict() | {"0.bias": torch.zeros(99)}
        save_file(content if isinstance(content, dict) else wider, file)
    with pytest.raises(LocalLearnError, match=told):
        started(copy.deepcopy(backbone), file)

"""Runs that start from the weights of an earlier one."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_runs import StopAfter, assert_equal_runs, final, little, settings, timeless

import locallearn as ll
from locallearn import LocalLearnError
from locallearn._nn.frozen import freeze
from locallearn.export import export_run
from locallearn.training import Interrupted, build, data_of, train
from locallearn.training.warm_start import WarmStart

CLASSES = ("rows", "columns", "diagonals")


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    train(settings(epochs=1), folder)
    return folder


@pytest.fixture(scope="module")
def backbone():
    return little(3, 3)


def started(model, path, classes=CLASSES) -> tuple[dict, list[str]]:
    told = []
    WarmStart.read(path).load(model, classes, told.append)
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


def test_all_weights_are_loaded_where_the_classes_are_the_same(first, backbone):
    state, told = started(copy.deepcopy(backbone), first)
    assert all(torch.equal(final(first)[f"net.model.{name}"], value) for name, value in state.items())
    assert told == [f"the backbone starts from the weights of {first / 'last.pt'}."]


@pytest.mark.parametrize("classes", [tuple("abcdefg"), ("columns", "rows", "diagonals")], ids=["more", "order"])
@pytest.mark.parametrize("exported", [False, True])
def test_the_classifier_starts_anew_where_classes_differ(classes, exported, first, tmp_path):
    model = little(len(classes), 3)
    before = copy.deepcopy(model.state_dict())
    path = export_run(first, tmp_path, trust_code=True) if exported else first
    state, (told,) = started(model, path, classes)
    assert "but for the classifier" in told
    anew = [name for name in state if torch.equal(state[name], before[name])]
    classifier = list(state)[-1].rpartition(".")[0]
    assert {f"{classifier}.weight", f"{classifier}.bias"} <= set(anew)
    assert torch.equal(state["0.weight"], final(first)["net.model.0.weight"])


@pytest.mark.parametrize("name", ["x.pth", "export", "none"])
def test_what_is_no_source_of_weights_is_told(name, tmp_path):
    (tmp_path / "x.pth").touch()
    (tmp_path / "export").mkdir()
    with pytest.raises(LocalLearnError, match=f"init_from=.*{name}: give a run folder, a checkpoint in it"):
        WarmStart.read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "init_from=/.*/other.safetensors: there is no such file; give a run folder"),
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


def test_frozen_layers_stay_and_cost_nothing(first, tmp_path, monkeypatch):
    """The first two of three layers: conv, norm, activation and dropout of 0 to 3 and of 4 to 7."""
    monkeypatch.setattr("locallearn.training.result.draw_curves", lambda *_: None)
    asked = settings(epochs=1, init_from=first, freeze=r"0|4", loggers=())
    with pytest.raises(Interrupted):
        train(asked, tmp_path / "run", watcher=StopAfter(1))
    train(asked, tmp_path / "run", resume="last")
    before, after = final(first), final(tmp_path / "run")
    changed = {
        name for name in after if name in before and not torch.equal(*map(torch.as_tensor, (before[name], after[name])))
    }
    assert {int(name.split(".")[2]) for name in changed if name.startswith("net.model.")} == {8, 9, 14}
    assert not any(name.startswith("net.auxiliary") for name in after), "a single module is left"
    whole = json.loads((first / "result.json").read_text())
    part = json.loads((tmp_path / "run" / "result.json").read_text())
    assert part["peak_activation_bytes"] < whole["peak_activation_bytes"]
    train(asked, tmp_path / "once")
    assert_equal_runs(tmp_path / "once", tmp_path / "run")


def test_a_classifier_that_starts_anew_is_not_frozen(backbone, tmp_path):
    weights = backbone.state_dict()
    classifier = list(weights)[-1].rpartition(".")[0]
    for name in (f"{classifier}.weight", f"{classifier}.bias"):
        weights[name] = torch.zeros(99, *weights[name].shape[1:])
    save_file(weights, tmp_path / "other.safetensors")
    asked = settings(init_from=tmp_path / "other.safetensors", freeze=classifier)
    told = []
    with pytest.raises(LocalLearnError, match=f"freeze={classifier} covers '{classifier}.weight', which starts anew"):
        train(asked, tmp_path / "run", say=told.append)
    assert told == []


@pytest.mark.parametrize("modules", ["all", 3, "parameters:3", "peak:3"])
def test_leading_frozen_layers_join_the_first_module_that_trains(modules):
    asked = settings(init_from=Path("any"), freeze="0", modules=modules)
    net = build(asked, data_of(asked))
    assert [net.chain.names[end] for end in net.partition.ends] == ["4", "8"]
    assert all(any(p.requires_grad for p in module.parameters()) for module in net.local_modules)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("1[0-9]+|[0-9]", "leaves nothing to train: name fewer parts"),
        ("layer", "freeze: no layer or module matches 'layer'"),
        ("(", "is no name and no regular expression"),
    ],
)
def test_what_cannot_be_frozen_is_refused(pattern, told, backbone):
    with pytest.raises(LocalLearnError, match=told):
        freeze(copy.deepcopy(backbone), {}, [pattern])


def test_first_weights_are_not_frozen():
    with pytest.raises(LocalLearnError, match="give trained weights by --init-from"):
        settings(freeze="0")

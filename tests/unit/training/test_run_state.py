"""Checkpoints whose bytes are right and whose content is not that of the run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import assert_equal_runs, loop_of, settings

from locallearn import LocalLearnError
from locallearn.training import AdamW, evaluate_run, load_checkpoint, load_run, save_checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    loop_of(settings(), folder).run()
    return folder


@pytest.fixture(scope="module")
def adamw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "adamw"
    loop_of(settings(optimizer=AdamW(), epochs=1), folder).run()
    return folder


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def told(folder: Path) -> str:
    """The sentence with which a resume is refused; no file has changed."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(LocalLearnError) as error:
        loop_of(settings(), folder).resume()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    sentence = str(error.value)
    assert str(folder / "last.pt") in sentence
    assert f"{folder / 'last.prev.pt'} is whole: --resume {folder} --from prev goes on from it." in sentence
    return sentence


def momentum(state: dict[str, Any], change: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    buffers = state["optimizers"][0]["state"][0]
    buffers["momentum_buffer"] = change(buffers["momentum_buffer"])
    return state


SPOILED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a list": (lambda state: list(state), "it holds a list"),
    "a tensor": (lambda state: torch.zeros(3), "it holds a Tensor"),
    "a missing entry": (lambda state: {k: v for k, v in state.items() if k != "seen"}, "it has no seen"),
    "an unknown entry": (lambda state: state | {"more": 1}, "it has an unknown entry 'more'"),
    "another format": (lambda state: state | {"format": 2}, "has format 2, and this version of locallearn reads 1"),
    "weights that are a list": (lambda state: state | {"net": [1]}, "its net is of another type"),
    "a weight of another shape": (
        lambda state: state | {"net": state["net"] | {"model.0.weight": torch.zeros(1)}},
        "do not fit the network",
    ),
    "a weight that is a text": (lambda s: s | {"net": s["net"] | {"model.0.weight": "x"}}, "do not fit the network"),
    "a random state of another size": (
        lambda state: state | {"random": {"cpu": torch.zeros(4, dtype=torch.uint8), "device": None}},
        "its random is of another type",
    ),
    "sums that are texts": (lambda state: state | {"sums": ["1"]}, "its sums is of another type"),
    "a step that is a number with a point": (lambda state: state | {"step": 0.0}, "its step is of another type"),
    "a step after the epoch": (lambda s: s | {"step": 999}, "is of epoch 4, step 999; the run has 3 epochs of 4 steps"),
    "an epoch after the run": (lambda state: state | {"epoch": 5}, "is of epoch 5, step 0; the run has 3 epochs"),
    "no epoch": (lambda state: state | {"epoch": 0}, "is of epoch 0, step 0"),
    "sums without steps": (lambda state: state | {"seen": 32}, "its sums are not of so many steps"),
    "no optimizer": (lambda state: state | {"optimizers": []}, "no state of the run's optimizer (SGD)"),
    "an optimizer that is a text": (lambda s: s | {"optimizers": ["SGD"]}, "no state of the run's optimizer (SGD)"),
    "momentum of another shape": (
        lambda s: momentum(s, lambda part: part[:1]),
        "no state of the run's optimizer (SGD)",
    ),
    "momentum that is a text": (lambda s: momentum(s, lambda _: "x"), "no state of the run's optimizer (SGD)"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_checkpoint_of_other_content_is_told_and_the_one_before_it_offered(kind, copied):
    spoil, sentence = SPOILED[kind]
    save_checkpoint(spoil(load_checkpoint(copied / "last.pt")), copied / "last.pt")
    assert sentence in told(copied)


def test_the_state_of_another_optimizer_is_told(copied, adamw):
    state, other = load_checkpoint(copied / "last.pt"), load_checkpoint(adamw / "last.pt")
    save_checkpoint(state | {"optimizers": other["optimizers"]}, copied / "last.pt")
    assert "no state of the run's optimizer (SGD)" in told(copied)


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made-by-a-pickle",)


def test_a_checkpoint_that_holds_code_is_refused_without_the_advice_to_run_it(copied, monkeypatch):
    monkeypatch.chdir(copied.parent)
    save_checkpoint({"net": Code()}, copied / "last.pt")
    sentence = told(copied)
    assert "it holds more than tensors, numbers and texts" in sentence
    assert "weights_only" not in sentence
    assert not (copied.parent / "made-by-a-pickle").exists()


def test_a_checkpoint_of_other_content_is_told_where_its_weights_are_used(copied):
    (copied / "settings.yaml").write_text("model: small_runs.little\n")
    save_checkpoint([1], copied / "last.pt")
    for use in (lambda: load_run(copied), lambda: evaluate_run(copied, settings())):
        with pytest.raises(LocalLearnError, match=r"last.pt is no checkpoint .* holds a list\. .*prev.pt is whole"):
            use()


def test_a_checkpoint_without_a_format_is_one_of_the_first_format(whole, copied):
    state = load_checkpoint(copied / "last.prev.pt")
    assert state.pop("format") == 1
    save_checkpoint(state, copied / "last.pt")
    rest = loop_of(settings(), copied)
    rest.resume()
    rest.run()
    assert_equal_runs(whole, copied)

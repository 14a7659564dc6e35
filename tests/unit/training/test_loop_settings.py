"""What may be added to the loop: averaged weights, learning rates of modules, PyTorch's schedulers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import StopAfter, assert_equal_runs, loop_of, settings

import locallearn as ll
from locallearn import LocalLearnError
from locallearn.cost import peak_memory
from locallearn.training import (
    SGD,
    AdamW,
    Interrupted,
    RunFolder,
    TorchSchedule,
    build,
    data_of,
    load_checkpoint,
    load_run,
    train,
)
from locallearn.training.remarks import remark_on_modules
from locallearn.training.settings.text import as_yaml

ONE_CYCLE = TorchSchedule(scheduler="OneCycleLR", each="step")

VARIANTS = {
    "averaged weights": {"ema": 0.9},
    "learning rates of modules": {"module_lr": (2.0, 0.5), "optimizer": AdamW(decay_norms_and_biases=False)},
    "RandAugment, mixup and CutMix": {"mixup": 0.2, "cutmix": 1.0, "rand_augment": (2, 9)},
    "one cycle, by module": {"schedule": ONE_CYCLE, "module_lr": (2.0, 0.5), "step": "module", "ema": 0.5},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopping_in_mid_epoch_and_resuming_changes_no_bit(variant, tmp_path):
    asked = settings(**VARIANTS[variant], epochs=2)
    loop_of(asked, tmp_path / "whole").run()
    with pytest.raises(Interrupted):
        loop_of(asked, tmp_path / "parts", StopAfter(6)).run()
    rest = loop_of(asked, tmp_path / "parts")
    rest.resume()
    rest.run()
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_averages_are_those_of_the_formula_and_the_weights_stay(tmp_path):
    fit = loop_of(settings(ema=0.4), tmp_path)
    model = fit.net.model
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    addresses = [tensor.data_ptr() for tensor in model.state_dict().values()]
    for step, (images, labels) in enumerate(fit.batches.epoch(1), 1):
        fit.train_step(images, labels, learning_rate=0.1)
        decay = min(0.4, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            moved = expected[name].lerp(tensor, 1 - decay) if tensor.is_floating_point() else tensor
            expected[name] = moved.clone()
    assert {
        name.removeprefix("model."): value for name, value in fit.average.state_dict().items()
    }.keys() == expected.keys()
    with fit.average.in_use():
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
    assert [tensor.data_ptr() for tensor in model.state_dict().values()] == addresses


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run with averaged weights, and what its loop prints as a result."""
    folder = tmp_path_factory.mktemp("runs") / "averaged"
    return folder, train(settings(ema=0.9, epochs=1, eval_heads=True), folder)


def test_both_accuracies_are_reported_and_the_averaged_weights_are_used(averaged):
    folder, result = averaged
    row, state = RunFolder(folder).rows()[-1], load_checkpoint(folder / "last.pt")
    assert row["unaveraged_test_accuracy"] == row["head_accuracies"][-1] == result["unaveraged_test_accuracy"]
    model = load_run(folder, trust_code=True).model
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state["average"][f"model.{name}"])
    assert any(not torch.equal(state["net"][name], tensor) for name, tensor in state["average"].items())


def test_the_memory_of_the_averages_is_counted(averaged, tmp_path):
    folder, result = averaged
    without = peak_memory(loop_of(settings(), tmp_path).net, 32, make_stepper=settings().make_stepper)
    size = sum(tensor.nbytes for tensor in load_checkpoint(folder / "last.pt")["average"].values())
    assert result["peak_total_bytes"] - without.total == size > 0


def test_factors_of_modules_lie_on_straight_lines(tmp_path):
    fit = loop_of(settings(module_lr=(2.0, 1.0)), tmp_path)
    fit.stepper.set_lr(0.1)
    assert [o.param_groups[0]["lr"] for o in fit.stepper.optimizers] == pytest.approx([0.2, 0.15, 0.1])
    plain, equal = (loop_of(settings(module_lr=factors), tmp_path) for factors in ((), (1.0, 1.0, 1.0)))
    for loop in (plain, equal):
        torch.manual_seed(0)
        loop._train_to_end_of_epoch()
    for name, tensor in plain.net.state_dict().items():
        assert torch.equal(tensor, equal.net.state_dict()[name]), name


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"module_lr": (1.0, 2.0, 3.0, 4.0)}, "module_lr has 4 factors, but there are 3 local modules"),
        (
            {"mixup": 0.2, "rule": ll.InfoPro.original()},
            "mixup and cutmix turn labels into probabilities, but ContrastiveHead, a part of InfoPro",
        ),
        (
            {"schedule": TorchSchedule(scheduler="OneCycleLR", arguments={"total_steps": 1})},
            "OneCycleLR ends before epoch 3 of 3",
        ),
    ],
)
def test_settings_that_do_not_fit_the_run_are_refused_before_a_folder_is_made(wrong, told, tmp_path):
    with pytest.raises(LocalLearnError, match=told):
        train(settings(**wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"ema": 1.0}, "ema=1.0 must be at least 0 and below 1"),
        ({"module_lr": (-1.0,)}, "must not be negative"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 is a share, from 0 to below 1"),
        ({"mixup": -0.1}, "mixup=-0.1 must be at least 0"),
        ({"rand_augment": (2,)}, "give how many operations"),
    ],
)
def test_values_that_make_no_sense_are_refused(wrong, told):
    with pytest.raises(LocalLearnError, match=told):
        settings(**wrong)


def test_a_checkpoint_without_the_average_is_refused(tmp_path):
    with pytest.raises(Interrupted):
        loop_of(settings(), tmp_path, StopAfter(1)).run()
    with pytest.raises(LocalLearnError, match="has no average of the weights"):
        loop_of(settings(ema=0.9), tmp_path).resume()


class Bare(ll.Rule):
    """A user's rule without the decorator of settings."""

    def auxiliary(self, site):
        return ll.Head(torch.nn.Identity(), site.loss)


@dataclass(frozen=True, kw_only=True)
class WithAClass(ll.DGL):
    kind: Any = torch.nn.ReLU


@pytest.mark.parametrize(
    ("rule", "message"),
    [(Bare(), "rule of TrainSettings is a Bare, which no"), (WithAClass(), "kind of WithAClass is the class ReLU")],
)
def test_settings_that_no_file_can_hold_are_refused_at_once(rule, message):
    with pytest.raises(LocalLearnError, match=message):
        settings(rule=rule)
    assert as_yaml(settings(optimizer=SGD(lr=np.float64(0.5)))) == as_yaml(settings(optimizer=SGD(lr=0.5)))


class Spread(ll.Auxiliary):
    """A user's loss by class: how many rows it reads depends on the labels."""

    needs_class_indices = True

    def __init__(self, site) -> None:
        super().__init__()
        self.head = torch.nn.Linear(site.channels, 2)

    def forward(self, features, images, labels):
        found = self.head(features.mean((2, 3)))
        return sum(found[labels == one].var() for one in labels.unique() if (labels == one).sum() > 1)


@dataclass(frozen=True, kw_only=True)
class ByClass(ll.Rule):
    def auxiliary(self, site):
        return Spread(site)


def test_a_loss_whose_shapes_depend_on_labels_trains_without_a_predicted_peak(tmp_path):
    told = []
    result = train(settings(rule=ByClass(), epochs=1), tmp_path / "run", say=told.append)
    assert result["peak_total_bytes"] is result["peak_activation_bytes"] is None
    assert any(one.startswith("training without a predicted peak of memory: ") for one in told)


AS_BP = (
    "trains end to end, as BP does: its only loss is the classifier's. Ask for more modules, a smaller span or"
    " shallower auxiliary networks."
)


def test_a_rule_whose_cascade_is_the_whole_network_trains_as_bp_does_and_says_so(tmp_path):
    asked = settings(model="small_runs.plain", rule=ll.MLAAN(ll.DGL()), epochs=1)
    images = data_of(asked)
    net, bp = build(asked, images), build(replace(asked, rule=ll.BP()), images)
    for one in (net, bp):
        one.backward(torch.linspace(0, 1, 4 * 3 * 144).view(4, 3, 12, 12), torch.tensor([0, 1, 2, 0]))
    for own, other in zip(net.model.parameters(), bp.model.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=2e-3, atol=1e-6)
    told = []
    train(asked, tmp_path / "run", say=told.append)
    assert [one for one in told if "end to end" in one] == [f"MLAAN(DGL) {AS_BP}"]


@pytest.mark.parametrize(
    ("rule", "modules", "told"),
    [
        (ll.DGL(), 1, [f"DGL {AS_BP}"]),
        (ll.AugLocal(depth=99), "all", [f"AugLocal {AS_BP}"]),
        (ll.DGL(), 2, []),
        (ll.BP(), 1, []),
        (ll.HiLo(ll.DGL(), span=2), "all", []),
    ],
)
def test_what_trains_end_to_end_is_said_to(rule, modules, told):
    asked, said = settings(model="small_runs.plain", rule=rule, modules=modules), []
    remark_on_modules(build(asked, data_of(asked)), rule, said.append)
    assert said == told

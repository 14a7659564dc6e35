"""Settings of a wrong type are refused in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

import locallearn as ll
from locallearn.detection import DetectSettings
from locallearn.training import SGD, AdamW, PaperCosine, StepDecay, TrainSettings


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: ll.AugLocal(depth="3"), "AugLocal: depth='3' is not a whole number"),
        (lambda: ll.DGL(grid=1.5), "DGL: grid=1.5 is not a whole number or None"),
        (lambda: ll.MAN(rule="dgl"), "MAN: rule='dgl' is not an instance of Rule"),
        (lambda: ll.InfoPro(lambda1=(1.0, "x")), r"InfoPro: lambda1=\(1.0, 'x'\) is not a list, each a finite number"),
        (lambda: SGD(lr=float("nan")), "SGD: lr=nan is not a finite number"),
        (lambda: SGD(momentum=-1.0), "momentum=-1.0 must not be negative"),
        (lambda: AdamW(beta1=1.0), "must be from 0 to below 1"),
        (lambda: PaperCosine(warmup_epochs=True), "warmup_epochs=True is not a whole number"),
        (lambda: StepDecay(after="x"), "after='x' is not a list"),
        (lambda: TrainSettings(optimizer="sgd"), "optimizer='sgd' is not an instance of OptimizerSettings"),
        (lambda: TrainSettings(data_dir="data"), "data_dir='data' is not an instance of Path"),
        (lambda: TrainSettings(modules={}), "modules={} is not a whole number or a text or a list, each a text"),
        (lambda: TrainSettings(compile="x" * 999), r"x\.\.\. is not true or false"),
        (lambda: DetectSettings(channels=1.5), "DetectSettings: channels=1.5 is not a whole number"),
    ],
)
def test_a_wrong_type_is_refused(wrong, sentence):
    with pytest.raises(ll.LocalLearnError, match=sentence):
        wrong()


class Undecorated(ll.Rule):
    grids: tuple[int, ...] = (1,)


class UndecoratedBelow(ll.Pooling):
    convolution: int = 1


class OnlyAValue(SGD):
    lr = 0.5


@dataclass(frozen=True, kw_only=True)
class DecoratedValue(SGD):
    lr = 0.5


class WithoutSettings(ll.Pooling):
    kind: ClassVar[str] = "own"


@pytest.mark.parametrize(
    ("make", "name"),
    [(Undecorated, "grids"), (UndecoratedBelow, "convolution"), (OnlyAValue, "lr"), (DecoratedValue, "lr")],
)
def test_a_setting_that_would_have_no_effect_is_refused(make, name):
    with pytest.raises(ll.LocalLearnError, match=rf"{make.__name__} sets {name}, which has no effect: .* @dataclass\("):
        make()


def test_a_class_without_settings_of_its_own_needs_no_decorator():
    assert WithoutSettings().partition(ll.Partition((0, 1))) == ll.Partition((0, 1))


def test_whole_numbers_are_numbers_and_lists_are_tuples():
    assert SGD(lr=1).lr == 1
    assert TrainSettings(modules=("a", "b"), clip_norm=2)

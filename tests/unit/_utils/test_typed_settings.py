"""Settings of a wrong type are refused in one sentence."""

from __future__ import annotations

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


def test_whole_numbers_are_numbers_and_lists_are_tuples():
    assert SGD(lr=1).lr == 1
    assert TrainSettings(modules=("a", "b"), clip_norm=2)

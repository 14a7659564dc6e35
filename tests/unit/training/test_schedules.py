from itertools import pairwise

import pytest
import torch

from locallearn import LocalLearnError
from locallearn.training import (
    Constant,
    Cosine,
    EpochDecay,
    ImageNetCosine,
    PaperCosine,
    StepDecay,
    TorchSchedule,
)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(1, 0.0100), (2, 0.08900), (5, 0.32588), (10, 0.71989), (11, 0.79851), (200, 0.4), (399, 1e-05)],
)
def test_the_papers_cosine_has_the_published_values(epoch, expected):
    lr = PaperCosine().lr(0.8, epoch=epoch, epochs=400, step=0, steps=49)
    assert round(lr, 5) == expected
    assert lr == PaperCosine().lr(0.8, epoch=epoch, epochs=400, step=48, steps=49), "constant within an epoch"


def test_the_papers_cosine_ends_at_exactly_zero():
    assert PaperCosine().lr(0.8, epoch=399, epochs=400, step=0, steps=49) == pytest.approx(1.2337e-05, rel=1e-4)
    assert PaperCosine().lr(0.8, epoch=400, epochs=400, step=0, steps=49) == 0.0


@pytest.mark.parametrize(
    ("base", "epochs", "epoch", "expected"),
    [
        *[(0.8, 160, 1, 0.01), (0.8, 160, 2, 0.088969), (0.8, 160, 10, 0.714083), (0.8, 160, 11, 0.790706)],
        *[(0.8, 160, 80, 0.4), (0.8, 160, 159, 7.7104e-5), (0.8, 160, 160, 0.0)],
        *[(0.1, 400, 2, 0.0189994), (0.1, 400, 10, 0.0908613), (0.1, 400, 11, 0.0998135)],
    ],
)
def test_the_papers_cosine_has_the_values_of_infopro_and_stl10(base, epochs, epoch, expected):
    assert PaperCosine().lr(base, epoch=epoch, epochs=epochs, step=0, steps=40) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("base", "epochs", "epoch", "expected"),
    [
        *[(0.4, 90, 1, 0.4), (0.4, 90, 2, 0.399878), (0.4, 90, 46, 0.2), (0.4, 90, 90, 1.21835e-4)],
        *[(0.05, 90, 90, 1.52293e-5), (0.05, 150, 150, 5.48291e-6), (0.4, 200, 200, 2.46735e-5)],
    ],
)
@pytest.mark.parametrize("step", [0, 1251])
def test_the_cosine_for_imagenet_has_the_published_values(base, epochs, epoch, expected, step):
    lr = ImageNetCosine().lr(base, epoch=epoch, epochs=epochs, step=step, steps=1252)
    assert lr == pytest.approx(expected, rel=1e-5)


def test_the_decay_by_epoch_has_dgls_values():
    lrs = {epoch: EpochDecay().lr(0.1, epoch=epoch, epochs=50, step=9, steps=10) for epoch in range(1, 51)}
    for first, last, expected in ((1, 15, 0.1), (16, 30, 0.02), (31, 45, 0.004), (46, 50, 0.0008)):
        assert [lrs[epoch] for epoch in range(first, last + 1)] == pytest.approx([expected] * (last - first + 1))


def test_the_decay_by_step_counts_the_steps_of_all_epochs():
    steps = 7_330
    for done, expected in ((0, 0.01), (59_999, 0.01), (60_000, 1e-3), (79_999, 1e-3), (80_000, 1e-4)):
        lr = StepDecay().lr(0.01, epoch=1 + done // steps, epochs=13, step=done % steps, steps=steps)
        assert lr == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: EpochDecay(epochs=(0,)), "epochs=.* from 1"),
        (lambda: StepDecay(after=(1.5,)), "after=.* is not a list, each a whole number"),
        (lambda: EpochDecay(factor=0.0), "factor=0"),
        (lambda: StepDecay(factor=float("inf")), "factor=inf"),
    ],
)
def test_a_decay_that_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(LocalLearnError, match=message):
        wrong()


def test_the_plain_cosine_falls_at_each_step_from_the_base_towards_zero():
    lrs = [Cosine().lr(0.1, epoch=1 + i // 5, epochs=4, step=i % 5, steps=5) for i in range(20)]
    assert lrs[0] == 0.1
    assert lrs[10] == pytest.approx(0.05)
    assert all(after < before for before, after in pairwise(lrs))
    assert 0 < lrs[-1] < 0.001


def test_the_plain_cosine_can_rise_first():
    lrs = [Cosine(warmup=0.25).lr(1.0, epoch=1, epochs=1, step=i, steps=40) for i in range(40)]
    assert lrs[0] == pytest.approx(0.1)
    assert max(lrs) == lrs[9]


def test_constant_is_constant():
    assert {Constant().lr(0.3, epoch=e, epochs=9, step=s, steps=4) for e in (1, 9) for s in (0, 3)} == {0.3}


def test_a_warmup_over_all_steps_is_refused():
    with pytest.raises(LocalLearnError, match=r"warmup=1\.0 is a share of all steps"):
        Cosine(warmup=1.0)


TORCH = {
    "MultiStepLR": {"milestones": [2, 4], "gamma": 0.1},
    "CosineAnnealingLR": {},
    "OneCycleLR": {"pct_start": 0.4},
    "CyclicLR": {"base_lr": 0.01, "step_size_up": 3},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"power": 2.0},
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("each", ["epoch", "step"])
def test_a_scheduler_of_pytorch_has_its_own_rates_in_whatever_order_they_are_asked_for(name, each):
    epochs, steps = 5, 4
    length = epochs * steps if each == "step" else epochs
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    filled = {
        "CosineAnnealingLR": {"T_max": length},
        "OneCycleLR": {"total_steps": length},
        "PolynomialLR": {"total_iters": length},
    }.get(name, {})
    filled |= {"cycle_momentum": False, "max_lr": 0.1} if "Cyc" in name else {}
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **TORCH[name], **filled)
    expected = []
    for _ in range(length):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    schedule = TorchSchedule(scheduler=name, arguments=TORCH[name], each=each)
    places = [(epoch, step) for epoch in range(1, epochs + 1) for step in range(steps)]
    for epoch, step in reversed(places):  # as after a resume, the first one asked for is not the first one
        done = (epoch - 1) * steps + step if each == "step" else epoch - 1
        assert schedule.lr(0.1, epoch=epoch, epochs=epochs, step=step, steps=steps) == expected[done]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scheduler": "LambdaLR"}, "scheduler='LambdaLR' is not valid"),
        ({"scheduler": "StepLR", "arguments": {}}, "StepLR does not take the arguments {}"),
        ({"scheduler": "OneCycleLR", "arguments": {"cycle_momentum": True}}, "cannot change the momentum"),
        ({"scheduler": "OneCycleLR", "arguments": {"max_lr": 0.4}}, r"leave it out, and give --optimizer.lr 0\.4"),
        ({"arguments": [1]}, "give names and values"),
        ({"scheduler": "StepLR", "arguments": {"step_size": 0}}, "StepLR does not take the arguments .*by zero"),
        ({"scheduler": "StepLR", "arguments": {"step_size": "a"}}, "StepLR does not take the arguments"),
        ({"scheduler": "MultiStepLR", "arguments": {"milestones": ["a"]}}, "must be a list of whole numbers"),
    ],
)
def test_a_scheduler_that_cannot_be_used_is_refused(wrong, message):
    with pytest.raises(LocalLearnError, match=message):
        TorchSchedule(**wrong)


def test_a_scheduler_that_fails_on_the_way_is_refused():
    schedule = TorchSchedule(scheduler="StepLR", arguments={"step_size": 3, "gamma": "x"})
    with pytest.raises(LocalLearnError, match="StepLR does not take the arguments"):
        schedule.lr(0.1, epoch=4, epochs=4, step=0, steps=1)

"""Errors that a user can act on."""

import pickle

import pytest

from locallearn._utils.errors import (
    LocalLearnError,
    NonFiniteLossError,
    OutOfMemoryError,
    did_you_mean,
    nearest,
    reason_of,
    refuse_unknown,
)


def test_errors_survive_pickling_with_their_attributes():
    error = pickle.loads(pickle.dumps(NonFiniteLossError("a loss is nan", objective=2, module=1, step=7)))
    assert (str(error), error.objective, error.module, error.step) == ("a loss is nan", 2, 1, 7)
    error = pickle.loads(pickle.dumps(OutOfMemoryError("no memory.", "Buy some.", module=3, batch=64, predicted=None)))
    assert (str(error), error.event) == ("no memory. Buy some.", "no memory.")
    assert (error.module, error.batch, error.predicted) == (3, 64, None)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("first line.\nsecond line"), "first line"),
        (ValueError("  it failed!"), "it failed"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_reason_is_the_first_line_of_the_message(error, reason):
    assert reason_of(error) == reason


def test_the_nearest_name_is_proposed_or_all_are_listed():
    known = ["resnet32", "resnet20", "vgg13"]
    assert did_you_mean("ResNet33", known) == "did you mean 'resnet32'?"
    assert did_you_mean("transformer", known) == "known: resnet20, resnet32, vgg13."


def test_a_setting_that_is_not_among_its_choices_is_refused_by_name():
    refuse_unknown("memory", "lean", ("fast", "lean"))
    with pytest.raises(LocalLearnError, match=r"memory='leen' is not valid; did you mean 'lean'\?"):
        refuse_unknown("memory", "leen", ("fast", "lean"))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet21", "resnet20"),
        ("ViT", "vit_b_16"),
        ("resnet", "resnet20"),
        ("resnet18", "resnet110"),
        ("mlp", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_the_only_longer_one_or_the_most_alike(name, near):
    assert nearest(name, ["resnet32", "resnet20", "resnet110", "vit_b_16"]) == near

"""Blocks that run several times, networks with few cuts, and what refusals propose."""

from __future__ import annotations

import pytest
import torch
from chains import assert_same_as, chain
from torch import nn

import locallearn as ll


class Repeating(nn.Module):
    """Runs its blocks in a given order."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.stem, self.fc, self.order = nn.Conv2d(3, 4, 1), nn.Linear(4, 5), order
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x):
        x = self.stem(x)
        for name in self.order:
            x = getattr(self, name)(x).relu()
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("order", "layers"),
    [("abc", "a b c"), ("aabc", "a b c"), ("abac", "a c"), ("abab", "b"), ("abcbc", "a c"), ("abcabc", "c")],
)
def test_calls_of_one_block_are_in_one_layer(order, layers):
    model = Repeating(order)
    found = chain(model)
    assert found.names == ("stem", *layers.split())
    assert_same_as(model, found)


def test_a_number_of_modules_that_the_layers_do_not_allow_lists_these():
    with pytest.raises(ll.LocalLearnError) as error:
        ll.localize(Repeating("abac"), ll.DGL(), modules=5, input_shape=(3, 8, 8))
    assert str(error.value) == (
        "modules=5: the network has 3 layers, so K must be from 1 to 3: stem, a, c (in 'a' a block runs several times,"
        " as one layer). Name the modules that end other layers by layers=[...]."
    )


class OneCut(nn.Module):
    """A single tensor passes before the classifier alone."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.join = (nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 4, 1))
        self.two, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

    def forward(self, x):
        left = self.left(x)
        return self.fc(self.join(torch.cat([self.two(left), self.right(x)], 1)).mean((2, 3)))


def test_a_remedy_that_leaves_a_single_layer_is_not_proposed():
    with pytest.raises(
        ll.LocalLearnError, match=r"; one passes after 'join' alone, which leaves a single layer, so give"
    ):
        chain(OneCut(), ["left"])


class Failing(nn.Module):
    """Raises an error in its forward code."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.one, self.fc = error, nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        self.one(x)
        raise self.error


@pytest.mark.parametrize(
    ("error", "asks"),
    [
        (RuntimeError("sizes do not match"), True),
        (AssertionError("height must be 32"), True),
        (TypeError("no such argument"), False),
        (AttributeError("no such attribute"), False),
        (NotImplementedError("to do"), False),
    ],
)
def test_an_error_of_forward_code_is_the_cause_and_only_sizes_raise_the_question_of_the_shape(error, asks):
    with pytest.raises(ll.LocalLearnError, match=str(error)) as refusal:
        chain(Failing(error))
    assert repr(refusal.value.__cause__) == repr(error)  # the network was copied
    assert ("Is input_shape right" in str(refusal.value)) == asks

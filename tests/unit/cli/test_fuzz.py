"""Random settings end in a training step or in one sentence; `support/fuzz.py` says how to run more of them."""

from __future__ import annotations

import pytest
from fuzz import Draw, outcome, rule_text, typed_arguments

FAST = 60


@pytest.mark.parametrize("first", range(0, FAST, 20))
def test_random_settings_end_in_a_step_or_a_sentence(first):
    ends = [outcome(number) for number in range(first, first + 20)]
    assert "step" in ends
    assert len(set(ends)) > 5


def test_many_random_settings_end_in_a_step_or_a_sentence():
    ends = [outcome(number) for number in range(FAST, FAST + 300)]
    assert 60 < ends.count("step") < 240


def test_an_example_is_the_same_each_time():
    assert typed_arguments(Draw(7)) == typed_arguments(Draw(7))
    assert len({rule_text(Draw(number)) for number in range(100)}) > 30

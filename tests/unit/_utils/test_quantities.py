"""Rates and times as people write them."""

from __future__ import annotations

import pytest

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import parse_rate, parse_seconds, parse_speed


def test_units_are_those_of_links_clocks_and_processors():
    assert parse_rate("25GB/s") == 25e9
    assert parse_rate("100 Gbit/s") == 12.5e9
    assert parse_seconds("5us") == parse_seconds("5 \N{MICRO SIGN}s") == pytest.approx(5e-6)
    assert parse_seconds("0s") == 0
    assert parse_speed("1.5TFLOP/s") == 1.5e12


@pytest.mark.parametrize("text", ["25Gb/s", "25", "GB/s", "-1GB/s", "0B/s", ""])
def test_a_rate_without_a_known_unit_is_refused(text):
    with pytest.raises(LocalLearnError, match=r"write a (number and a unit|larger number)"):
        parse_rate(text)

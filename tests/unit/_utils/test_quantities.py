"""Amounts of memory, rates and times as people write them."""

from __future__ import annotations

import pytest

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.quantities import (
    counted,
    format_bytes,
    parse_bytes,
    parse_rate,
    parse_seconds,
    parse_speed,
    size_text,
    there_are,
)


def test_a_count_of_one_is_told_as_one():
    assert [counted(count, "training image") for count in (0, 1, 1438)] == [
        "0 training images",
        "1 training image",
        "1,438 training images",
    ]
    assert [counted(2, noun) for noun in ("class", "batch", "epoch")] == ["2 classes", "2 batches", "2 epochs"]
    assert [there_are(count, "GPU") for count in (1, 2)] == ["there is 1 GPU", "there are 2 GPUs"]


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


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GiB", 2**30),
        (" 512 MiB ", 2**29),
        ("1.5gb", 1_500_000_000),
        (".5KiB", 512),
        ("7B", 7),
        ("2.TB", 2 * 10**12),
    ],
)
def test_a_number_and_a_unit_are_parsed(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "12", "1 GiBs", "-1GiB", "1e3MB", "1 G"])
def test_other_texts_are_refused(text):
    with pytest.raises(LocalLearnError, match="is no amount of memory: write a number and a unit"):
        parse_bytes(text)


def test_more_than_a_float_holds_is_refused():
    with pytest.raises(LocalLearnError, match="is too large: write a smaller number"):
        parse_bytes("9" * 400 + "GiB")


@pytest.mark.parametrize("text", ["0GiB", "0.1B"])
def test_less_than_a_byte_is_refused(text):
    with pytest.raises(LocalLearnError, match="is too small: write a larger number"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1,023 B"), (1024, "1.00 KiB"), (3 * 2**29, "1.50 GiB"), (2**40, "1,024.00 GiB")],
)
def test_bytes_are_written_in_the_largest_fitting_unit(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(("size", "text"), [(99, "99B"), (2**20 + 1, "1024KiB"), (2**37, "128GiB"), (2**30, "1024MiB")])
def test_bytes_are_written_as_they_are_read(size, text):
    assert size_text(size) == text
    assert 0.99 * size <= parse_bytes(text) <= size

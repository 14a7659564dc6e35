"""Amounts of memory as people write them."""

import pytest

from locallearn._utils.byte_size import format_bytes, parse_bytes, size_text
from locallearn._utils.errors import LocalLearnError


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


@pytest.mark.parametrize("text", ["0GiB", "0.1B"])
def test_less_than_a_byte_is_refused(text):
    with pytest.raises(LocalLearnError, match="must be larger than 0"):
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

"""Sizes are read the way that can never break a cap."""

import pytest

from edge_train.errors import EdgeTrainError, InputError
from edge_train.units import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [("8GB", 8 * 10**9), ("8GiB", 8 * 2**30), ("8G", 8 * 10**9), ("512", 512), ("0.5mb", 500_000)],
)
def test_sizes_are_decimal_unless_they_say_otherwise(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "lots", "-3GB", "0GB", "8 GX", "8iB", "nan", "1e9", "0.1B"])
def test_what_is_no_size_is_refused_by_name(text):
    with pytest.raises(InputError, match="8GB"):
        parse_bytes(text)


def test_formatting_never_shows_four_digits():
    for exponent in range(10):
        assert len(format_bytes(10**exponent).split()[0].replace(".", "")) <= 3


@pytest.mark.parametrize("text", ["9" * 5000, "1" + "0" * 400 + "GB", "99999999999TB"])
def test_a_size_beyond_every_machine_is_refused_in_a_short_sentence(text):
    with pytest.raises(InputError, match="more than any machine has") as caught:
        parse_bytes(text)
    assert len(str(caught.value)) < 150


def test_a_message_of_controls_is_as_short_as_any_other():
    assert len(str(EdgeTrainError("\0" * 900))) < 1100

"""`--when`: hours of a day and mains power, on a clock and a tree of files that the test writes."""

import time

import pytest

from edge_train.errors import InputError
from edge_train.power.when import parse_when


def at(hour, minute=0):
    return time.struct_time((2026, 1, 2, hour, minute, 0, 4, 2, 0))


@pytest.mark.parametrize(
    ("words", "inside", "outside"),
    [
        ("night", [(22, 0), (23, 59), (0, 0), (5, 59)], [(6, 0), (12, 0), (21, 59)]),
        ("01:30-02:00", [(1, 30), (1, 59)], [(1, 29), (2, 0), (13, 30)]),
        ("23:00-1:00", [(23, 0), (0, 59)], [(1, 0), (22, 59)]),
    ],
)
def test_hours_are_those_of_the_local_clock_also_over_midnight(words, inside, outside):
    when = parse_when(words)
    assert all(when.objection(at(*moment)) is None for moment in inside)
    assert all("--when says" in when.objection(at(*moment)) for moment in outside)


def test_a_clock_that_jumps_back_counts_from_the_next_look_on():
    when = parse_when("22:00-06:00")
    looks = [when.objection(at(hour)) is None for hour in (23, 7, 23)]
    assert looks == [True, False, True]


@pytest.mark.parametrize("words", ["noon", "22-6", "24:00-06:00", "22:60-06:00", "6:00-6:00", "x"])
def test_what_is_no_time_to_train_is_refused_by_a_sentence(words):
    with pytest.raises(InputError, match="--when"):
        parse_when(words)


def supplies(folder, **found):
    """Write a folder of power supplies: name -> values of its files."""
    for name, values in found.items():
        (folder / name).mkdir(parents=True)
        for file, text in values.items():
            (folder / name / file).write_text(text + "\n")
    return folder


BATTERY = {"type": "Battery", "status": "Discharging"}


@pytest.mark.parametrize(
    ("found", "is_mains"),
    [
        ({}, True),  # a desktop
        ({"AC": {"type": "Mains", "online": "1"}, "BAT0": BATTERY}, True),
        ({"AC": {"type": "Mains", "online": "0"}, "BAT0": BATTERY}, False),
        ({"usb": {"type": "USB_PD", "online": "1"}, "BAT0": BATTERY}, True),
        ({"BAT0": {"type": "Battery", "status": "Charging"}}, True),
        ({"BAT0": {"type": "Battery"}}, False),  # it does not say
        ({"mouse": {**BATTERY, "scope": "Device"}}, True),
    ],
)
def test_mains_is_what_the_system_says(tmp_path, found, is_mains):
    said = parse_when("mains").objection(supplies=supplies(tmp_path / "supply", **found))
    assert (said is None) == is_mains
    assert is_mains or "on battery (BAT0" in said

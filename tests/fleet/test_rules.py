"""Means of what devices measured, messages as bytes, noise, and the names of rounds."""

import math

import numpy as np
import pytest

from edge_train.errors import InputError
from edge_train.fleet import wire
from edge_train.fleet.averaging import Average, weight_of
from edge_train.fleet.members import ranges
from edge_train.fleet.privacy import MOST_LOSS, Privacy
from edge_train.fleet.rounds import START, evaluation_after, round_of, slopes_of
from edge_train.fleet.wire import Answer, Asked, read_answer, read_asked

HONEST = [[1.0, -2.0], [1.1, -2.1], [0.9, -1.9], [1.05, -2.05], [0.95, -1.95]]
LIARS = [[1e9, 1e9], [-1e12, 1e9]]


def test_one_device_is_what_it_measured():
    value = 0.1 + 0.2
    for rule in ("mean", "trimmed", "median"):
        assert Average(rule).of([[value, -value]]) == [value, -value]


def test_mean_is_of_all_and_median_stands_against_liars():
    assert np.allclose(Average("mean").of(HONEST), [1.0, -2.0])
    assert abs(Average("mean").of(HONEST + LIARS)[0]) > 1e6
    for rule in ("median", "trimmed"):
        found = Average(rule, trim=0.3).of(HONEST + LIARS)
        assert 0.9 <= found[0] <= 1.1, rule
        assert -2.1 <= found[1] <= -1.9, rule


def test_trimmed_leaves_something_of_few_devices():
    assert Average("trimmed", trim=0.5).of([[1.0], [3.0]]) == [2.0]
    assert Average("trimmed", trim=0.5).of([[1.0], [3.0], [8.0]]) == [3.0]


def test_devices_count_by_their_noise():
    assert Average("mean").of([[0.0], [1.0]], [1.0, 0.5]) == [pytest.approx(1 / 3)]
    assert Average("mean").of([[0.0], [1.0]], [0.5, 0.5]) == [0.5]
    exact, coarse = ({"rows": [{"agreement": a}]} for a in (0.99, 0.45))
    assert weight_of(None) == 1.0
    assert 1.0 > weight_of(exact) > weight_of(coarse) > 0.5
    for odd in ({}, {"rows": []}, {"rows": [{"agreement": 5.0}]}, {"rows": [{"agreement": "x"}]}):
        assert weight_of(odd) == 1.0, odd


def test_messages_come_back_as_they_were():
    entries = {slopes_of(3): (0.5, 1.0, -2.0), evaluation_after(3): (0.25,), slopes_of(4): None}
    asked = Asked(wire.ASK, b"abcd", slopes_of(5), entries)
    assert read_asked(asked.encode()) == asked
    answer = Answer(wire.MEASURED, b"abcd", slopes_of(5), (0.1, math.pi))
    assert read_answer(answer.encode()) == answer
    told = Answer(wire.STOPPED, b"abcd", 0, text="no data")
    assert read_answer(told.encode()) == told


def test_a_steady_round_of_four_slopes_is_small():
    values = (0.5, 1.0, 2.0, 3.0, 4.0)
    assert len(Asked(wire.ASK, b"abcd", slopes_of(9), {slopes_of(8): values}).encode()) <= 60
    assert len(Answer(wire.MEASURED, b"abcd", slopes_of(9), values).encode()) <= 60


@pytest.mark.parametrize("reader", [read_asked, read_answer])
def test_hostile_messages_are_named(reader):
    good = Asked(wire.ASK, b"abcd", 5, {1: (1.0, 2.0), 2: None}).encode()
    draw = np.random.default_rng(0)
    for _ in range(300):
        bad = bytearray(good[: draw.integers(0, len(good) + 1)])
        for place in draw.integers(0, max(len(bad), 1), 3):
            if place < len(bad):
                bad[place] = draw.integers(0, 256)
        try:
            reader(bytes(bad))
        except ValueError as error:
            assert str(error)
    with pytest.raises(ValueError, match="version 9"):
        reader(b"\x09" + good[1:])
    with pytest.raises(ValueError, match="bytes"):
        reader(b"")


def test_agreed_numbers_are_finite():
    message = Asked(wire.ASK, b"abcd", 5, {1: (float("nan"),)}).encode()
    with pytest.raises(ValueError, match="not finite"):
        read_asked(message)


def test_rounds_are_told_apart_and_in_order():
    numbers = [START]
    for step in range(3):
        numbers += [slopes_of(step), evaluation_after(step), evaluation_after(step, again=True)]
    assert numbers == sorted(set(numbers))
    assert [round_of(n).step for n in numbers[1:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_noise_has_the_length_that_it_says():
    privacy = Privacy(clip=1.0, noise=2.0)
    many = np.array([privacy.slopes([30.0, 40.0]) for _ in range(4000)])
    assert np.allclose(many.mean(axis=0), [0.6, 0.8], atol=0.15)  # cut to length 1
    assert np.allclose(many.std(axis=0), 2.0, rtol=0.1)
    short = np.array([privacy.slopes([0.1, 0.0]) for _ in range(4000)])
    assert abs(short.mean(axis=0)[0] - 0.1) < 0.15
    losses = np.array([privacy.loss(1e9) for _ in range(4000)])
    assert abs(losses.mean() - MOST_LOSS) < 1.5


def test_epsilon_of_a_run_is_the_sum_of_its_rounds():
    privacy = Privacy(1.0, 10.0)
    rho = (100 * (2 + 0.5) + 3 * 0.5) / 10.0**2  # (2 C)^2 / (2 (sC)^2), L^2 / (2 (sL)^2)
    expected = rho + 2 * math.sqrt(rho * math.log(1e5))
    assert privacy.epsilon(steps=100, evaluations=3) == pytest.approx(expected)
    # never less than the exact curve of one Gaussian release of the same rho (Balle and Wang 2018)
    sigma = 1 / math.sqrt(2 * rho)

    def cumulative(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    delta = cumulative(1 / (2 * sigma) - expected * sigma) - math.exp(expected) * cumulative(
        -1 / (2 * sigma) - expected * sigma
    )
    assert delta <= 1e-5


def test_noise_needs_a_length():
    for clip, noise in ((0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)):
        with pytest.raises(InputError, match="set clip and noise, or neither"):
            Privacy(clip, noise)


def test_many_devices_are_said_in_few_words():
    assert ranges(list(range(1000))) == "0-999"
    assert ranges([]) == ""
    assert ranges([5, 3, 2]) == "2-3 5"

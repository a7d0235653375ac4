"""Draws for rounding: uniform, independent two by two, a function of the key and the name."""

import numpy as np
import pytest

from edge_train.arrays.rounding import AT_ONCE, Noise
from edge_train.rng import Key


def test_the_same_key_and_name_give_the_same_bits():
    one, other = Noise(Key(1, 2), "a"), Noise(Key(1, 2), "a")
    for shape in ((5, 7), (3, 7), (2, AT_ONCE)):
        np.testing.assert_array_equal(one.bits(shape), other.bits(shape))
    for noise in (Noise(Key(1, 3), "a"), Noise(Key(1, 2), "b")):
        assert (noise.bits((5, 7)) != Noise(Key(1, 2), "a").bits((5, 7))).all()


def draws(count=2000):
    """Return six numbers of many keys: two places of two parts of one matrix, and of another."""
    found = []
    for step in range(count):
        first, second = Noise(Key(0, step), "a"), Noise(Key(0, step), "b")
        parts = [first.centered((2, 3)), first.centered((2, 3)), second.centered((2, 3))]
        found.append([value for part in parts for value in (part[0, 1], part[1, 2])])
    return np.array(found)


def test_draws_are_uniform_and_any_two_are_independent():
    """2,000 draws: a mean has a deviation of 0.0065, a correlation one of 0.022."""
    found = draws()
    assert found.min() >= -0.5 and found.max() <= 0.5
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(found.std(axis=0), 12**-0.5, atol=0.02)
    for values in (found, np.abs(found), np.sin(2 * np.pi * found), np.cos(2 * np.pi * found)):
        between = np.corrcoef(values.T) - np.eye(values.shape[1])
        assert np.abs(between).max() < 0.1


def test_rounding_with_it_is_right_on_average():
    value = np.float32(0.0123)
    noise = [np.rint(value + Noise(Key(0, s), "a").centered((1 << 14,))).mean() for s in range(60)]
    assert np.mean(noise) == pytest.approx(value, rel=0.05)

"""Curves of likeness against forwards: who reached what, when."""

from pathlib import Path

import numpy as np
import pytest

from edge_train.bench.forwards import files_of
from edge_train.bench.forwards_curves import Curve, forwards_to, interval, wanted_of


def test_a_curve_that_never_reaches_it_is_more_than_it_ran():
    assert forwards_to(Curve((0, 10, 20), (0.1, 0.2, 0.3)), 0.31) == np.inf


def test_what_is_reached_between_two_points_is_on_their_line():
    curve = Curve((0, 100, 300), (0.0, 0.4, 0.8))
    assert forwards_to(curve, 0.2) == 50
    assert forwards_to(curve, 0.6) == pytest.approx(200)
    assert forwards_to(curve, 0.8) == 300


def test_a_curve_that_falls_back_has_reached_it():
    assert forwards_to(Curve((0, 100, 200), (0.0, 0.5, 0.1)), 0.5) == 100


def test_a_curve_that_starts_there_needs_nothing():
    assert forwards_to(Curve((0, 100), (0.5, 0.4)), 0.5) == 0


def test_the_share_is_of_the_gain_and_not_of_the_likeness():
    exact = [Curve((0, 9), (0.6, 0.8)), Curve((0, 9), (0.6, 1.0))]
    assert wanted_of(exact, 0.5) == pytest.approx(0.75)


def test_runs_that_never_reached_it_count_as_the_longest():
    assert interval([1.0, 2.0, np.inf])[0] == 2
    middle, low, high = interval([1.0, np.inf, np.inf])
    assert (middle, low, high) == (np.inf, 1.0, np.inf)


def test_an_interval_is_the_same_again_and_holds_the_median():
    values = [10.0, 20.0, 30.0, 40.0, 50.0]
    middle, low, high = interval(values)
    assert (middle, low, high) == interval(values[::-1])
    assert low < middle == 30 < high


def test_a_curve_of_another_rate_has_other_files():
    """The point of a rate was taken for that of an ending: four rates were read from one file."""
    curves = (Path(f"zo-at-{rate:g}-6400-seed{seed}") for rate in (0.001, 0.005) for seed in (0, 1))
    assert len({file for curve in curves for file in files_of(curve)}) == 8

"""No row grows past four times the start; what stays within is not touched."""

import numpy as np

from edge_train.optim.norm_limit import NormLimit


def test_rows_end_at_most_so_many_times_as_long_as_at_the_start():
    start = np.array([[3.0, 4.0], [3.0, 4.0]], np.float32)
    rule = NormLimit(4.0)
    state = rule.init(start)
    update = np.array([[-300.0, -400.0], [1.0, 1.0]], np.float32)
    moved = start - rule.update(update, state, start)
    np.testing.assert_allclose(moved, [[12.0, 16.0], [2.0, 3.0]], rtol=1e-6)


def test_an_update_within_the_bound_keeps_every_bit():
    start = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    rule, update = NormLimit(4.0), start[::-1] * np.float32(0.3)
    kept = update.copy()
    np.testing.assert_array_equal(rule.update(update, rule.init(start), start), kept)


def test_a_start_of_zeros_has_no_bound():
    start = np.zeros((1, 4), np.float32)
    rule, update = NormLimit(4.0), np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(rule.update(update, rule.init(start), start), update)

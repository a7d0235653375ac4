"""Directions of earlier tokens: likely moves, the largest effect first, each left out honestly."""

import numpy as np
import reference

from edge_train.export.token_prior import linear_start, prior_of, second_moments, shares_left_out

RANDOM = np.random.default_rng(0)
MOVES = RANDOM.standard_normal((12, 5)) * [5, 3, 1, 1, 0.1]
ROOT = RANDOM.standard_normal((5, 5))
METRIC = ROOT @ ROOT.T


def test_second_moments_equal_the_reference():
    np.testing.assert_allclose(second_moments(MOVES), reference.drawn_to_unit(MOVES), rtol=1e-9)


def test_moves_of_no_direction_in_particular_come_out_as_the_unit_matrix():
    found = second_moments(np.concatenate([np.eye(5), -np.eye(5)]))
    np.testing.assert_allclose(found, np.eye(5) / 5, atol=1e-12)


def test_all_directions_together_have_the_moments_of_the_moves():
    rows = prior_of(MOVES, METRIC, 5).rows
    np.testing.assert_allclose(rows.T @ rows, second_moments(MOVES), rtol=1e-6, atol=1e-6)


def test_the_first_direction_is_the_likely_move_of_the_largest_effect():
    moves = np.array([[2.0, 0, 0], [-2.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0]] * 50)
    far, felt = np.eye(3), np.diag([1.0, 100.0, 1.0])
    assert np.abs(prior_of(moves, far, 1).rows[0]).argmax() == 0
    assert np.abs(prior_of(moves, felt, 1).rows[0]).argmax() == 1


def test_effects_of_directions_are_independent_under_the_metric():
    rows = prior_of(MOVES, METRIC, 3).rows
    effects = rows @ METRIC @ rows.T
    assert np.all(np.diff(np.diag(effects)) < 0)
    np.testing.assert_allclose(effects, np.diag(np.diag(effects)), atol=1e-8 * effects.max())


def test_a_group_that_is_left_out_has_no_part_in_its_directions():
    moves = np.zeros((40, 4))
    moves[:, 0] = RANDOM.choice([-1, 1], 40)
    moves[30:] = [0, 0, 5, 0]  # the others never went there
    groups = np.repeat([0, 1], [30, 10])
    shares = shares_left_out(moves, np.eye(4), groups, 1)
    np.testing.assert_allclose(shares[30:], 0, atol=1e-12)
    own = shares_left_out(moves, np.eye(4), np.arange(40), 1)
    np.testing.assert_allclose(own[30:], 1, atol=1e-12)


def test_a_guess_from_photos_is_ridge_regression():
    features = RANDOM.standard_normal((12, 3)) + 2
    own, moves = features - features.mean(axis=0), MOVES - MOVES.mean(axis=0)
    level = 0.1 * np.square(own).sum() / 12
    weights = np.linalg.solve(own.T @ own + level * np.eye(3), own.T @ moves)
    found = linear_start(MOVES, features)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-8)
    np.testing.assert_allclose(found.moves(features), MOVES.mean(axis=0) + own @ weights, rtol=1e-8)

"""The metric of a token: how many numbers count, and what of a move lies inside directions."""

import numpy as np
import pytest
import reference

from edge_train.export.token_metric import effective_dimension, metric_of, roots, share_inside


def draws(values, count, seed=0):
    """Return draws whose second moments are a diagonal."""
    noise = np.random.default_rng(seed).standard_normal((count, len(values)))
    return noise * np.sqrt(values)


def test_eigenvalues_come_largest_first_with_their_vectors_as_rows():
    found = metric_of(draws(np.array([1.0, 9.0, 0.0]), 4000))
    assert found.values[0] > found.values[1] > found.values[2] >= 0
    assert abs(found.vectors[0, 1]) > 0.99
    turned = found.vectors @ found.matrix @ found.vectors.T
    np.testing.assert_allclose(turned, np.diag(found.values), atol=1e-12)


def test_effective_dimension_is_that_of_the_matrix_even_from_few_draws():
    flat = np.ones(64)
    few = draws(flat, 60)
    matrix = few.T @ few / len(few)
    naive = np.trace(matrix) ** 2 / np.square(matrix).sum()
    value, error = effective_dimension(few)
    assert naive < 40  # 60 draws span less than 64 directions
    assert abs(value - 64) < 4 * error
    value, error = effective_dimension(draws(np.array([4.0, 1.0, 1.0, 0.0]), 1000))
    assert abs(value - 2) < 4 * error
    assert error < 0.3


def test_the_share_inside_equals_the_reference():
    random = np.random.default_rng(1)
    root = random.standard_normal((5, 5))
    metric, rows, moves = (
        root @ root.T,
        random.standard_normal((2, 5)),
        random.standard_normal((3, 5)),
    )
    expected = [reference.share_by_metric(metric, rows, move) for move in moves]
    np.testing.assert_allclose(share_inside(metric, rows, moves), expected, rtol=1e-8)


def test_a_move_along_a_direction_is_inside_and_one_that_is_not_felt_counts_nothing():
    metric = np.diag([2.0, 1.0, 0.0])
    rows = np.array([[1.0, 0.0, 0.0]])
    shares = share_inside(metric, rows, np.array([[3.0, 0.0, 5.0], [0.0, 1.0, 0.0]]))
    np.testing.assert_allclose(shares, [1, 0], atol=1e-12)


@pytest.mark.parametrize("values", [[3.0, 2.0, 1.0], [3.0, 1.0, 0.0]])
def test_roots_multiply_to_the_metric_and_leave_out_what_it_does_not_feel(values):
    turn, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))
    metric = turn @ np.diag(values) @ turn.T
    root, inverse = roots(metric)
    np.testing.assert_allclose(root @ root, metric, atol=1e-12)
    felt = turn @ np.diag(np.array(values) > 0).astype(float) @ turn.T
    np.testing.assert_allclose(root @ inverse, felt, atol=1e-9)

"""Directions from a matrix equal their definition, and a journal's scalars rebuild their steps."""

import numpy as np
import pytest
import reference
from quadratic import QuadraticRuntime, QuadraticTask

from edge_train.estimators.directions import Spanned, isotropic
from edge_train.estimators.zo import ZerothOrder
from edge_train.rng import Key, direction

ROWS = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
DRAW = Spanned({"token": ROWS})
SPANNED = next(Key(0, step) for step in range(9) if not isotropic(Key(0, step)))
ISOTROPIC = next(Key(0, step) for step in range(99) if isotropic(Key(0, step)))


def test_every_vector_of_a_block_equals_the_reference():
    z = DRAW(SPANNED, 1, "token", (2, 6))
    u = direction(SPANNED, 1, "token", (2, 3))
    expected = [reference.spanned(ROWS.astype(float), row.astype(float)) for row in u]
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-5)  # sums of three float32 products
    assert np.linalg.matrix_rank(np.stack([z[0], *ROWS]), tol=1e-4) == 3


def test_the_scale_of_a_matrix_is_of_no_account():
    z = Spanned({"token": ROWS * 1000})(SPANNED, 0, "token", (1, 6))
    np.testing.assert_allclose(z, DRAW(SPANNED, 0, "token", (1, 6)), rtol=1e-5, atol=1e-6)


def test_a_direction_is_as_long_on_average_as_an_isotropic_one():
    keys = [key for step in range(700) if not isotropic(key := Key(1, step))]
    squares = [float(np.square(DRAW(key, 0, "token", (1, 6))).sum()) for key in keys]
    # of |z|^2 = 6: three eigenvalues give a deviation below 6 * sqrt(2), of 600 below 0.35
    assert abs(np.mean(squares) - 6) < 1.4


def test_a_tenth_of_the_steps_is_isotropic_in_every_query():
    assert 60 < sum(isotropic(Key(5, step)) for step in range(1000)) < 140  # 100 +- 4 times 9.5
    for query in (0, 3):
        own = DRAW(ISOTROPIC, query, "token", (2, 6))
        assert own.tolist() == direction(ISOTROPIC, query, "token", (2, 6)).tolist()


def test_after_its_steps_a_span_is_left_for_all_there_is():
    draw = Spanned({"token": ROWS}, steps=50)
    keys = [key for step in range(100) if not isotropic(key := Key(3, step))]
    drawn = [draw(key, 0, "token", (1, 6)) for key in keys]
    inside = [np.linalg.matrix_rank(np.vstack([z, ROWS]), tol=1e-4) == 3 for z in drawn]
    assert inside == [key.step < 50 for key in keys]
    last = keys[-1]
    assert drawn[-1].tobytes() == direction(last, 0, "token", (1, 6)).tobytes()


def test_a_block_without_a_matrix_is_isotropic():
    assert DRAW(SPANNED, 0, "other", (2,)).tolist() == direction(SPANNED, 0, "other", (2,)).tolist()


@pytest.mark.parametrize("key", [SPANNED, ISOTROPIC])
def test_scalars_and_key_rebuild_the_gradient_to_the_same_bits(key):
    runtime, task = QuadraticRuntime(), QuadraticTask()
    first, again = {}, {}
    estimator = ZerothOrder(0.02, {"token": 0.5}, 3, 1, DRAW)
    found = estimator.estimate(runtime, task, task.batch(key), key, first.__setitem__)
    estimator = ZerothOrder(0.02, {"token": 0.5}, 3, 1, Spanned({"token": ROWS.copy()}))
    estimator.replay(found.scalars, runtime.parameters, key, again.__setitem__)
    assert first["token"].tobytes() == again["token"].tobytes()


def test_losses_are_taken_along_the_directions_that_the_gradient_is_made_of():
    runtime, task = QuadraticRuntime(), QuadraticTask()
    estimator = ZerothOrder(0.02, {"token": 0.5}, 1, 1, DRAW)
    estimator.estimate(runtime, task, task.batch(SPANNED), SPANNED, lambda name, gradient: None)
    (points,) = runtime.points_seen
    moved = points[0]["token"] - points[1]["token"]
    # float32 sums beside 1: six digits of a move of 0.01
    expected = 0.01 * DRAW(SPANNED, 0, "token", (2, 6))
    np.testing.assert_allclose(moved, expected, atol=1e-6)


@pytest.mark.parametrize("matrix", [np.zeros((1, 4), np.float32), ROWS * np.nan])
def test_a_matrix_that_spans_nothing_is_refused(matrix):
    with pytest.raises(ValueError, match="spans nothing"):
        Spanned({"token": matrix})


def test_a_matrix_of_another_width_is_refused():
    with pytest.raises(ValueError, match="vectors of 7 numbers, the matrix has 6"):
        DRAW(SPANNED, 0, "token", (1, 7))

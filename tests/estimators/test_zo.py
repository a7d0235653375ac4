"""Zeroth-order estimation equals its definition and keeps its promises about points."""

import numpy as np
import pytest
import reference
from quadratic import QuadraticRuntime, QuadraticTask

from edge_train.errors import ModelError
from edge_train.estimators.slope_check import _AGREEMENT, check_slopes
from edge_train.estimators.zo import ZerothOrder
from edge_train.rng import Key, direction


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("queries", [1, 2, 5])
def test_estimate_equals_the_reference(sides, queries):
    runtime, task, key = QuadraticRuntime(), QuadraticTask(), Key(1, 2)
    batch, emitted = task.batch(key), {}
    ZerothOrder(0.02, {"token": 0.5}, queries, sides).estimate(
        runtime, task, batch, key, emitted.__setitem__
    )

    def loss(flat):
        noise = 0.1 * batch["noise"].astype(np.float64)
        return float(np.square(flat - noise).mean())

    directions = [direction(key, q, "token", (2, 6)).ravel().astype(float) for q in range(queries)]
    expected = reference.random_gradient(loss, np.ones(12), directions, 0.02 * 0.5, sides)
    # losses are float32: relative 6e-8 of 1, over a radius of 0.01
    np.testing.assert_allclose(emitted["token"].ravel(), expected, atol=2e-4)


def test_all_evaluations_of_a_step_see_one_batch_and_fresh_points():
    runtime, task, key = QuadraticRuntime(), QuadraticTask(), Key(1, 2)
    ZerothOrder(0.02, {"token": 1.0}, 3, 1).estimate(
        runtime, task, task.batch(key), key, lambda name, gradient: None
    )
    (points,) = runtime.points_seen
    assert len(points) == 4
    assert points[-1] is runtime.parameters
    for point in points[:-1]:
        assert not np.shares_memory(point["token"], runtime.parameters["token"])


def test_estimate_is_unbiased_on_a_quadratic():
    runtime, task = QuadraticRuntime(), QuadraticTask()
    batch, total = task.batch(Key(0, 0)), np.zeros((2, 6))
    exact = {}
    runtime.backward(batch, exact.__setitem__)
    estimator = ZerothOrder(0.01, {"token": 1.0}, 64, 2)
    rounds = 40
    for step in range(rounds):
        seen = {}
        estimator.estimate(runtime, task, batch, Key(0, step), seen.__setitem__)
        total += seen["token"] / rounds
    # 2,560 directions in 12 coordinates: standard error |g| * sqrt(13 / 2560) = 7 % of |g|
    error = np.linalg.norm(total - exact["token"]) / np.linalg.norm(exact["token"])
    assert error < 0.2


class RoundingRuntime(QuadraticRuntime):
    """Losses rounded to a coarse grid, as low-precision activations would."""

    def __init__(self, grid):
        super().__init__()
        self.grid = grid

    def forward(self, batch, points):
        losses = super().forward(batch, points)
        return (np.round(losses / self.grid) * self.grid).astype(np.float32)


def check(runtime, wanted=0.01, smallest=0.0):
    task = QuadraticTask()
    return check_slopes(runtime, task, task.evaluation(), {"token": 1.0}, 0, wanted, smallest)


def test_slope_check_keeps_the_wanted_radius_where_the_engine_is_exact():
    found = check(QuadraticRuntime())
    assert found.epsilon == 0.01
    assert found.forwards == (1 + 2 * 4) * 8  # the center, four directions at two radii
    assert found.sentence() == "slope check: perturbation radius 0.01 of the rms"


def test_slope_check_raises_the_radius_above_rounding_noise():
    found = check(RoundingRuntime(0.02))
    assert found.epsilon > 0.01
    assert found.rows[0].agreement < _AGREEMENT
    assert found.rows[-1].agreement >= _AGREEMENT
    assert "raised from 0.01, where slopes agree only to" in found.sentence()


def test_slope_check_takes_no_radius_below_the_safe_one():
    assert check(QuadraticRuntime(), smallest=0.02).epsilon == 0.02


def test_slope_check_refuses_a_loss_that_ignores_the_token():
    with pytest.raises(ModelError, match="does not respond"):
        check(RoundingRuntime(1e9))


def test_slope_check_refuses_a_loss_that_is_not_finite():
    runtime = QuadraticRuntime({"token": np.full((2, 6), np.inf, np.float32)})
    with pytest.raises(ModelError, match="not finite"):
        check(runtime)

"""Slopes and curvature from answers equal their definition, and so does the step they give."""

import numpy as np
import pytest
import reference
from quadratic import QuadraticRuntime, QuadraticTask

from edge_train.errors import NonFinite
from edge_train.estimators.directions import Spanned, isotropic
from edge_train.estimators.gauss_newton import GaussNewton
from edge_train.estimators.residual_slopes import residual_slopes
from edge_train.estimators.zo import Perturbed
from edge_train.rng import Key, direction

SCALE = {"token": 0.5}
KEY = Key(1, 2)


def directions(count):
    return [direction(KEY, q, "token", (2, 6)).ravel().astype(float) for q in range(count)]


def measured(radius, sides=1, queries=3):
    runtime, task = QuadraticRuntime(), QuadraticTask()
    moved, back = (
        [Perturbed(runtime.parameters, SCALE, KEY, q, e) for q in range(queries)]
        for e in (radius, -radius)
    )
    against = back if sides == 2 else [runtime.parameters]
    return residual_slopes(runtime, task, task.batch(KEY), moved, against, radius)


@pytest.mark.parametrize("sides", [1, 2])
def test_slopes_of_a_quadratic_are_exact_at_every_radius(sides):
    gradient = {}
    runtime, task = QuadraticRuntime(), QuadraticTask()
    runtime.backward(task.batch(KEY), gradient.__setitem__)
    exact = [0.5 * z @ gradient["token"].ravel() for z in directions(3)]
    for radius in (0.1, 5.0):
        found = measured(radius, sides)
        # a difference of losses is off by the curvature times the radius, 5 of 0.2; answers are
        # float32, and their differences at the small radius a tenth of them: 1e-6
        np.testing.assert_allclose(found.slopes.mean(axis=1), exact, atol=2e-6, rtol=2e-6)


def test_curvature_is_that_of_the_loss_in_the_span():
    z = np.stack(directions(3))
    expected = 2 / 12 * 0.25 * z @ z.T  # the loss is a mean of squares of 12 numbers
    np.testing.assert_allclose(measured(1.0).curvature, expected, rtol=1e-5, atol=1e-6)


def test_losses_are_those_of_the_points():
    runtime, task = QuadraticRuntime(), QuadraticTask()
    found = measured(0.3)
    expected = runtime.forward(task.batch(KEY), [runtime.parameters])[0]
    np.testing.assert_allclose(found.losses[-1], expected, rtol=1e-6)


def test_steps_equal_the_reference():
    runtime, task, expected = QuadraticRuntime(), QuadraticTask(), []
    estimator, curvatures = GaussNewton(0.5, SCALE, queries=3), []
    for _ in range(4):
        found = measured(0.5)
        curvatures.append(np.trace(found.curvature) / 3)
        lengths = reference.damped_step(found.slopes.mean(axis=1), found.curvature, curvatures)
        expected = 0.5 * lengths @ np.stack(directions(3))
        emitted = {}
        estimator.estimate(runtime, task, task.batch(KEY), KEY, emitted.__setitem__)
        np.testing.assert_allclose(emitted["token"].ravel(), expected, rtol=1e-5, atol=1e-7)


def test_replayed_steps_leave_the_state_that_measured_ones_did():
    runtime, task = QuadraticRuntime(), QuadraticTask()
    measuring, replaying = (GaussNewton(0.5, SCALE, queries=3) for _ in range(2))
    for step in range(3):
        key = Key(1, step)
        found = measuring.estimate(runtime, task, task.batch(key), key, lambda *_: None)
        replaying.replay(found.scalars, runtime.parameters, key, lambda *_: None)
    assert measuring.state["count"][0] == 3
    for name, value in measuring.state.items():
        np.testing.assert_array_equal(value, replaying.state[name])


def test_a_model_that_no_direction_moves_takes_no_step():
    class Deaf(QuadraticTask):
        def residuals(self, runtime, batch, points):
            return np.ones((len(points), 4, 12), np.float32)

    emitted = {}
    estimator = GaussNewton(0.5, SCALE)
    estimator.estimate(QuadraticRuntime(), Deaf(), {}, KEY, emitted.__setitem__)
    assert not emitted["token"].any()


def test_what_is_not_finite_is_not_remembered():
    runtime, task = QuadraticRuntime(poison={2}), QuadraticTask()
    estimator = GaussNewton(0.5, SCALE)
    with pytest.raises(NonFinite):
        estimator.estimate(runtime, task, task.batch(KEY), KEY, lambda *_: None)
    assert estimator.state["count"][0] == 0


def test_steps_lie_in_the_span_that_directions_come_from():
    rows = np.eye(6, dtype=np.float32)[:2]
    estimator = GaussNewton(0.5, SCALE, queries=3, draw=Spanned({"token": rows}))
    runtime, task = QuadraticRuntime(), QuadraticTask()
    key = next(k for k in (Key(0, step) for step in range(50)) if not isotropic(k))
    emitted, rebuilt = {}, {}
    found = estimator.estimate(runtime, task, task.batch(key), key, emitted.__setitem__)
    assert emitted["token"][:, :2].any()
    assert not emitted["token"][:, 2:].any()
    estimator.replay(found.scalars, runtime.parameters, key, rebuilt.__setitem__)
    np.testing.assert_array_equal(emitted["token"], rebuilt["token"])

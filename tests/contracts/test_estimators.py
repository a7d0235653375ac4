"""Every estimator leaves parameters alone, learns with a plain rate, and tells the truth."""

from copy import deepcopy

import numpy as np
import pytest
from quadratic import QuadraticRuntime, QuadraticTask

from edge_train.errors import NonFinite
from edge_train.estimators.backprop import Backprop
from edge_train.estimators.gauss_newton import GaussNewton
from edge_train.estimators.zo import ZerothOrder
from edge_train.protocols import Replayable
from edge_train.rng import Key

SCALE = {"token": 0.5, "token_2": 2.0}
ESTIMATORS = {
    "backprop": Backprop(),
    "zo one-sided": ZerothOrder(0.01, SCALE, queries=2, sides=1),
    "zo two-sided": ZerothOrder(0.01, SCALE, queries=3, sides=2),
    "gauss-newton one-sided": GaussNewton(0.1, SCALE, queries=2, sides=1),
    "gauss-newton two-sided": GaussNewton(0.1, SCALE, queries=3, sides=2),
}


@pytest.fixture(params=ESTIMATORS.values(), ids=ESTIMATORS.keys())
def estimator(request):
    return deepcopy(request.param)  # some remember earlier steps


@pytest.fixture
def runtime():
    blocks = {"token": np.ones((2, 3), np.float32), "token_2": -np.ones((1, 5), np.float32)}
    return QuadraticRuntime(blocks)


def estimate(estimator, runtime, step=0, apply=lambda name, gradient: None):
    key, task = Key(7, step), QuadraticTask()
    return estimator.estimate(runtime, task, task.batch(key), key, apply)


def test_without_apply_every_parameter_bit_stays(estimator, runtime):
    before = runtime.parameters.copy()
    estimate(estimator, runtime)
    for name, block in before.items():
        np.testing.assert_array_equal(runtime.parameters[name], block)


def test_with_a_plain_rate_it_learns(estimator, runtime):
    task = QuadraticTask()
    first = task.loss(runtime, task.evaluation(), [runtime.parameters]).mean()
    rate = np.float32(1.0 if isinstance(estimator, GaussNewton) else 0.3)  # it emits steps

    def apply(name, gradient):
        runtime.parameters.subtract(name, rate * gradient, Key(7, step))

    for step in range(200):
        estimate(estimator, runtime, step, apply)
    last = task.loss(runtime, task.evaluation(), [runtime.parameters]).mean()
    assert last < 0.1 * first


def test_the_same_key_gives_the_same_step(estimator, runtime):
    results = []
    for _ in range(2):
        seen = []
        found = estimate(
            deepcopy(estimator), runtime, 4, lambda name, g, seen=seen: seen.append(g.copy())
        )
        results.append((found, seen))
    assert results[0][0] == results[1][0]
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_scalars_rebuild_the_gradient_bit_for_bit_without_the_runtime(estimator, runtime):
    emitted, rebuilt = {}, {}
    found = estimate(estimator, runtime, 4, emitted.__setitem__)
    if not isinstance(estimator, Replayable):
        assert found.scalars == ()
        return
    estimator.replay(found.scalars, runtime.parameters, Key(7, 4), rebuilt.__setitem__)
    assert emitted.keys() == rebuilt.keys() == set(runtime.parameters)
    for name in emitted:
        np.testing.assert_array_equal(emitted[name], rebuilt[name])


def test_passes_are_counted_in_samples(estimator, runtime):
    found = estimate(estimator, runtime)
    expected = {
        "backprop": (4, 4),
        "zo one-sided": (3 * 4, 0),
        "zo two-sided": (6 * 4, 0),
        "gauss-newton one-sided": (3 * 4, 0),
        "gauss-newton two-sided": (6 * 4, 0),
    }
    name = next(n for n, e in ESTIMATORS.items() if e == estimator)
    assert (found.forwards, found.backwards) == expected[name]


def test_a_loss_that_is_not_finite_is_reported(estimator):
    runtime = QuadraticRuntime(
        {"token": np.ones((2, 3), np.float32), "token_2": np.ones((1, 5), np.float32)}, poison={0}
    )
    with pytest.raises(NonFinite):
        estimate(estimator, runtime)

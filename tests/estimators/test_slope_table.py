"""The slope table tells exact engines from rounding ones, and how far a step must be for these."""

import numpy as np
import pytest
from quadratic import QuadraticRuntime, QuadraticTask

from edge_train.estimators.slope_table import KEY, central_slopes, compare, exact_slopes
from edge_train.rng import Key

SCALE = {"token": 0.5}
DIRECTIONS = 16


class NoisyRuntime(QuadraticRuntime):
    """Losses with noise of one size at every point, as rounding of activations makes."""

    def __init__(self, noise, seed=3):
        super().__init__()
        self.noise = noise
        self.draw = np.random.default_rng(seed)

    def forward(self, batch, points):
        losses = super().forward(batch, points)
        noise = self.noise * self.draw.standard_normal(losses.shape)
        return (losses + noise).astype(np.float32)


def measure(runtime, key=KEY):
    task = QuadraticTask()
    batch = task.evaluation()
    exact = exact_slopes(QuadraticRuntime(), batch, SCALE, DIRECTIONS, key)
    return compare(runtime, task, batch, SCALE, exact, key), exact


def test_exact_slopes_are_those_of_a_short_step() -> None:
    task = QuadraticTask()
    batch = task.evaluation()
    exact = exact_slopes(QuadraticRuntime(), batch, SCALE, DIRECTIONS, KEY)
    central = central_slopes(QuadraticRuntime(), task, batch, SCALE, DIRECTIONS)
    assert exact.slopes.shape == (DIRECTIONS, 8)
    np.testing.assert_allclose(exact.losses, central.losses)
    # float32 losses of about 1 over a difference of 0.006: 2e-5
    np.testing.assert_allclose(central.slopes, exact.slopes, atol=1e-4)


def test_an_exact_engine_is_safe_at_every_radius() -> None:
    table, _ = measure(QuadraticRuntime())
    assert table.safe_epsilon == table.rows[0].epsilon
    assert table.rows[0].correlation > 0.999
    assert table.loss_tolerance == 1e-5


@pytest.mark.parametrize("noise", [0.003, 0.01])
def test_the_safe_radius_is_where_noise_is_a_twentieth_of_the_variance(noise) -> None:
    table, exact = measure(NoisyRuntime(noise))
    # A one-sided slope holds the noise of two losses.
    expected = np.sqrt(2 * noise**2 / (0.05 * np.square(exact.slopes).mean()))
    assert table.safe_epsilon == pytest.approx(expected, rel=0.35)
    assert table.safe_epsilon in [row.epsilon for row in table.rows]


def test_the_safe_radius_hardly_depends_on_the_draw() -> None:
    tables = [measure(NoisyRuntime(0.01, seed), Key(seed, 0))[0] for seed in range(6)]
    radii = [table.safe_epsilon for table in tables]
    # 128 slopes, those of a sample with one center: the noise's variance is known to about 20 %
    assert max(radii) / min(radii) < 1.5


def test_the_tolerance_is_twice_the_largest_difference() -> None:
    class Shifted(QuadraticRuntime):
        def forward(self, batch, points):
            return super().forward(batch, points) * np.float32(1.01)

    assert measure(Shifted())[0].loss_tolerance == pytest.approx(0.02, rel=0.06)

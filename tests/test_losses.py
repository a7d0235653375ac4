"""Local losses: every gradient is the slope of its loss; the definitions are written out here."""

import numpy as np
import pytest

from edge_train.estimators.layerwise.local_losses import LOCAL_LOSSES, local_error
from edge_train.losses import cross_entropy

random = np.random.default_rng(0)
OUTPUTS = random.uniform(-0.9, 0.9, (6, 5)).astype(np.float32)
TARGETS = random.choice([-0.6, 0.6], (6, 5)).astype(np.float32)

DEFINITIONS = {
    "l2": lambda y, t: (0.5 * (y - t) ** 2).sum(),
    "sign": lambda y, t: np.abs(y - t).sum(),
    "huber": lambda y, t: np.where(
        np.abs(y - t) <= 0.5, 0.5 * (y - t) ** 2, 0.5 * (np.abs(y - t) - 0.25)
    ).sum(),
    "hinge": lambda y, t: (0.5 * np.maximum(0, 1 - np.sign(t) * y) ** 2).sum(),
    "logistic": lambda y, t: np.log(1 + np.exp(-np.sign(t) * y)).sum(),
    "cosine": lambda y, t: 1 - (y @ t) / np.linalg.norm(y) / np.linalg.norm(t),
}


def test_every_loss_has_its_definition_here():
    assert DEFINITIONS.keys() == LOCAL_LOSSES.keys()


@pytest.mark.parametrize("loss", LOCAL_LOSSES)
def test_losses_are_their_definition_and_errors_its_slopes(loss):
    losses, error = local_error(loss, OUTPUTS, TARGETS)
    assert (losses.shape, error.shape, error.dtype) == ((6,), (6, 5), np.float32)
    for row in range(6):
        y, t = OUTPUTS[row].astype(np.float64), TARGETS[row].astype(np.float64)
        assert losses[row] == pytest.approx(DEFINITIONS[loss](y, t), rel=1e-4)
        for unit in range(5):
            step = np.zeros(5)
            step[unit] = 1e-6
            slope = (DEFINITIONS[loss](y + step, t) - DEFINITIONS[loss](y - step, t)) / 2e-6
            assert error[row, unit] == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize("loss", LOCAL_LOSSES)
def test_a_row_of_zeros_stays_finite(loss):
    losses, error = local_error(loss, np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32))
    assert np.isfinite(losses).all() and np.isfinite(error).all()


def test_the_sign_loss_gives_integers():
    _, error = local_error("sign", OUTPUTS, TARGETS)
    assert set(np.unique(error)) <= {-1.0, 0.0, 1.0}


def test_cross_entropy_does_not_overflow():
    losses, error = cross_entropy(
        np.array([[1e4, 0, 0], [0, 1e4, 0]], np.float32), np.array([0, 0])
    )
    np.testing.assert_array_equal(losses, [0, 1e4])
    np.testing.assert_array_equal(error, [[0, 0, 0], [-1, 1, 0]])


def test_smoothed_and_weighted_cross_entropy_is_its_definition_and_the_error_its_slope():
    logits, labels = 3 * OUTPUTS, np.array([0, 1, 2, 3, 4, 0])
    weights = np.linspace(0.5, 2, 6).astype(np.float32)
    losses, error = cross_entropy(logits, labels, 0.2, weights)

    def definition(row, values):
        target = np.full(5, 0.2 / 5)
        target[labels[row]] += 0.8
        return weights[row] * (np.log(np.exp(values).sum()) - target @ values)

    for row in range(6):
        values = logits[row].astype(np.float64)
        assert losses[row] == pytest.approx(definition(row, values), rel=1e-5)
        for unit in range(5):
            step = np.zeros(5)
            step[unit] = 1e-6
            slope = definition(row, values + step) - definition(row, values - step)
            assert error[row, unit] == pytest.approx(slope / 2e-6, abs=1e-5)

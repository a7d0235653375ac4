"""Every transform keeps shape and dtype, never grows its state, and resumes bit for bit."""

import numpy as np
import pytest

from edge_train.subspace import DenoiseSubspace
from edge_train.transforms import Adam, Chain, LearningRate, NormCorrection, WeightDecay

TRANSFORMS = {
    "adam": Adam(),
    "norm correction": NormCorrection(2),
    "learning rate": LearningRate(0.1, 10, 0.1, relative=True),
    "denoise": DenoiseSubspace(2, tau=6, nu=1e-2),
    "weight decay": WeightDecay(0.1),
    "zoodip": Chain((NormCorrection(2), DenoiseSubspace(2, tau=6), Adam(), LearningRate(1, 9))),
}


@pytest.fixture(params=TRANSFORMS.values(), ids=TRANSFORMS.keys())
def transform(request):
    return request.param


def updates(transform, state, param, steps, seed=0):
    random = np.random.default_rng(seed)
    result = []
    for _ in range(steps):
        gradient = random.standard_normal(param.shape).astype(np.float32)
        update = transform.update(gradient, state, param)
        param = param - np.float32(0.01) * update
        result.append(update)
    return result


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 768)])
def test_shape_and_dtype_are_kept(transform, shape):
    param = np.ones(shape, np.float32)
    for update in updates(transform, transform.init(param), param, 15):
        assert update.shape == shape
        assert update.dtype == np.float32
        assert np.isfinite(update).all()


def test_state_does_not_grow_after_init(transform):
    param = np.ones((2, 5), np.float32)
    state = transform.init(param)
    before = {name: (value.shape, value.dtype) for name, value in state.items()}
    updates(transform, state, param, 15)
    assert {name: (value.shape, value.dtype) for name, value in state.items()} == before


def test_a_copied_state_goes_on_bit_for_bit(transform):
    param = np.ones((2, 5), np.float32)
    state = transform.init(param)
    updates(transform, state, param, 9)
    copy = {name: value.copy() for name, value in state.items()}
    for a, b in zip(
        updates(transform, state, param, 9, 1), updates(transform, copy, param, 9, 1), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_zero_gradient_stays_finite(transform):
    param = np.zeros((2, 5), np.float32)
    state = transform.init(param)
    for _ in range(15):
        assert np.isfinite(transform.update(np.zeros_like(param), state, param)).all()

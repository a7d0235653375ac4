"""Every transform keeps shape and dtype, never grows its state, and resumes bit for bit."""

import numpy as np
import pytest

from edge_train.arrays.factored import dense
from edge_train.optim.adam8bit import SMALLEST, Adam8bit
from edge_train.optim.apollo import Apollo
from edge_train.optim.bases import Columns, RandomVectors, TopVectors
from edge_train.optim.denoise_subspace import DenoiseSubspace
from edge_train.optim.low_rank import LowRank
from edge_train.optim.normalized import Normalized
from edge_train.optim.orthogonal import OrthogonalMomentum
from edge_train.optim.racs import Racs
from edge_train.optim.transforms import Adam, Chain, LearningRate, NormCorrection, WeightDecay
from edge_train.optim.weight_norm import WeightNorm

TRANSFORMS = {
    "adam": Adam(),
    "norm correction": NormCorrection(2),
    "learning rate": LearningRate(0.1, 10, 0.1, relative=True),
    "denoise": DenoiseSubspace(2, tau=6, nu=1e-2),
    "adam with decay": Chain((Adam(), WeightDecay(0.1))),
    "adam8bit": Adam8bit(),
    "galore": LowRank(Adam(), TopVectors(2), 4, 0.25),
    "q-galore": LowRank(Adam8bit(), TopVectors(2, packed=True), 2, 0.25, adaptive=True),
    "rotated": LowRank(Adam8bit(), TopVectors(2), 4, moments="rotate"),
    "dct-adamw": LowRank(Adam(), Columns(2, of="dct"), 1, moments="rotate"),
    "columns": LowRank(Adam8bit(), Columns(2), 3, moments="rotate"),
    "frugal": LowRank(Adam(), Columns(2, by="chance"), 4, moments="reset", remainder=0.1),
    "frugal sgd": LowRank(Adam(), Columns(2), 4, remainder=0.1, remainder_by="sgd"),
    "fira": LowRank(Adam(), TopVectors(2), 4, 0.25, remainder=1.0, remainder_by="length"),
    "sumo": LowRank(
        OrthogonalMomentum(),
        TopVectors(2),
        4,
        moments="rotate",
        remainder=1.0,
        remainder_by="sgd",
        plain=Adam(),
    ),
    "gradnormlorp": WeightNorm(
        Chain((LowRank(Adam(), TopVectors(2), 4, 0.25), LearningRate(0.1, 9))),
        Chain((Adam(), LearningRate(0.1, 9))),
        2,
    ),
    "scale": Normalized(),
    "scale of columns": Normalized("columns"),
    "scale with momentum": Normalized(momentum=0.9),
    "scale of columns with momentum": Normalized("columns", momentum=0.9),
    "racs": Racs(),
    "apollo": Apollo(Adam(), RandomVectors(2), 4),
    "apollo-mini": Apollo(Adam(), RandomVectors(1), 4, 11.3, by="tensor"),
    "zoodip": Chain((NormCorrection(2), DenoiseSubspace(2, tau=6), Adam(), LearningRate(1, 9))),
}


@pytest.fixture(params=TRANSFORMS.values(), ids=TRANSFORMS.keys())
def transform(request):
    return request.param


def made(update, param):
    """Return an update as what it subtracts from the parameter: a matrix only notes its decay."""
    if isinstance(update, np.ndarray):
        return update
    decay, update.decay = update.decay, 0.0
    return dense(update) + np.float32(decay) * param


def updates(transform, state, param, steps, seed=0):
    random = np.random.default_rng(seed)
    result = []
    for _ in range(steps):
        gradient = random.standard_normal(param.shape).astype(np.float32)
        update = made(transform.update(gradient, state, param), param)
        param = param - np.float32(0.01) * update
        result.append(update)
    return result


SHAPES = [(1, 1), (7,), (3, 5), (9, 4), (1, 768), (6, 2, 3), (SMALLEST // 4 + 1, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_and_dtype_are_kept(transform, shape):
    param = np.ones(shape, np.float32)
    for update in updates(transform, transform.init(param), param, 15):
        assert update.shape == shape
        assert update.dtype == np.float32
        assert np.isfinite(update).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_state_does_not_grow_after_init(transform, shape):
    param = np.ones(shape, np.float32)
    state = transform.init(param)
    before = {name: (value.shape, value.dtype) for name, value in state.items()}
    updates(transform, state, param, 15)
    assert {name: (value.shape, value.dtype) for name, value in state.items()} == before


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_copied_state_goes_on_bit_for_bit(transform, shape):
    param = np.ones(shape, np.float32)
    state = transform.init(param)
    updates(transform, state, param, 9)
    copy = {name: value.copy() for name, value in state.items()}
    for a, b in zip(
        updates(transform, state, param, 9, 1), updates(transform, copy, param, 9, 1), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [0.0, 1e-44, 1e-38, 1e-30, 1e-20, 1e18])
@pytest.mark.parametrize("shape", [(5, 4), (SMALLEST // 4 + 1, 5)], ids=str)
def test_gradients_of_any_size_give_finite_updates(transform, size, shape):
    """And no warning: tests make errors of them."""
    param = np.zeros(shape, np.float32)
    state = transform.init(param)
    random = np.random.default_rng(0)
    for _ in range(15):
        gradient = (size * random.standard_normal(param.shape)).astype(np.float32)
        assert np.isfinite(made(transform.update(gradient, state, param), param)).all()


@pytest.mark.parametrize("shape", [(5, 4), (SMALLEST // 4 + 1, 5)], ids=str)
def test_gradients_whose_size_jumps_give_finite_updates(transform, shape):
    param = np.zeros(shape, np.float32)
    state = transform.init(param)
    random = np.random.default_rng(0)
    for size in (1, 1, 1e-44, 1e-38, 0, 1e-30, 1, 1e-20, 1e10, 1e-44):
        gradient = (size * random.standard_normal(param.shape)).astype(np.float32)
        assert np.isfinite(made(transform.update(gradient, state, param), param)).all()


def test_the_parameter_is_not_changed(transform):
    random = np.random.default_rng(0)
    param, gradient = random.standard_normal((2, 5, 4)).astype(np.float32)
    state = transform.init(param)
    before = param.copy()
    for _ in range(3):
        transform.update(gradient.copy(), state, param)
    np.testing.assert_array_equal(param, before)


def test_no_state_shares_memory_with_what_is_given_or_returned(transform):
    """A link may overwrite what it is given: so nothing that it keeps may be part of that."""
    random = np.random.default_rng(0)
    param, gradient = random.standard_normal((2, 5, 4)).astype(np.float32)
    state = transform.init(param)
    for _ in range(3):
        given = gradient.copy()
        result = made(transform.update(given, state, param), param)
        for value in state.values():
            assert not np.shares_memory(value, given)
            assert not np.shares_memory(value, result)

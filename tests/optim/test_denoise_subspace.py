"""Subspace Gradient denoising: equal to its definition, and no more than it is."""

import numpy as np
import reference

from edge_train.optim.denoise_subspace import DenoiseSubspace
from edge_train.optim.transforms import Adam, Chain, LearningRate


def walk(transform, size, steps, seed=0):
    """Feed a random walk of parameters; return the state and the history it saw."""
    random = np.random.default_rng(seed)
    param = random.standard_normal(size).astype(np.float32)
    state, history = transform.init(param), []
    drift = random.standard_normal((3, size)).astype(np.float32)
    for _ in range(steps):
        history.append(param.copy())
        transform.update(np.zeros(size, np.float32), state, param)
        param = param + (random.standard_normal(3) @ drift).astype(np.float32)
        param += 0.01 * random.standard_normal(size).astype(np.float32)
    return state, np.array(history), param


def test_projection_equals_the_reference():
    for size in (5, 40, 200):
        transform = DenoiseSubspace(queries=2, tau=16, nu=1e-2)
        state, history, param = walk(transform, size, 16)
        gradient = np.random.default_rng(1).standard_normal(size).astype(np.float32)
        found = transform.update(gradient, state, param)
        expected, removed = reference.denoise(gradient.astype(float), history, 1e-2)
        assert removed > 0
        assert int(state["removed"][0]) == removed
        longer = np.sqrt((size + 1) / (size - removed + 1))
        np.testing.assert_allclose(found, longer * expected, rtol=2e-2, atol=2e-3)


def test_directions_the_parameters_move_along_are_kept():
    transform = DenoiseSubspace(queries=2, tau=32, nu=1e-2)
    state, history, param = walk(transform, 60, 32)
    moved = (history[-1] - history[0]).astype(np.float32)
    found = transform.update(moved, state, param)
    cosine = found @ moved / np.linalg.norm(found) / np.linalg.norm(moved)
    assert cosine > 0.98


def test_projecting_twice_removes_nothing_more():
    transform = DenoiseSubspace(queries=1, tau=16, nu=1e-2)
    state, _, param = walk(transform, 30, 16)
    gradient = np.random.default_rng(1).standard_normal(30).astype(np.float32)
    size, removed = 30, None
    once = transform.update(gradient, state, param)
    removed = int(state["removed"][0])
    twice = transform.update(once, state, param)
    np.testing.assert_allclose(twice, once * np.sqrt(size / (size - removed)), rtol=1e-3, atol=1e-4)


def test_before_the_first_refresh_nothing_is_removed():
    transform = DenoiseSubspace(queries=2, tau=16)
    state, _, param = walk(transform, 30, 15)
    gradient = np.ones(30, np.float32)
    np.testing.assert_array_equal(transform.update(gradient, state, param), gradient)


def test_a_coordinate_that_never_moves_is_harmless():
    transform = DenoiseSubspace(queries=2, tau=8)
    param = np.zeros(10, np.float32)
    state = transform.init(param)
    for step in range(20):
        param = param + np.float32(step) * (np.arange(10) > 4)
        assert np.isfinite(transform.update(np.ones(10, np.float32), state, param)).all()


def test_null_pure_noise_also_has_most_directions_removed():
    """What the paper reads as the task's dimension is Adam's momentum smoothing a random walk."""
    size, tau = 768, 128
    denoise = DenoiseSubspace(queries=2, tau=tau, nu=1e-3)
    chain = Chain((denoise, Adam(0.9, 0.999, 1e-3), LearningRate(5e-3, 1)))
    random = np.random.default_rng(0)
    param = (0.01 * random.standard_normal(size)).astype(np.float32)
    state = chain.init(param)
    for _ in range(2 * tau + 1):
        noise = (0.01 * random.standard_normal(size)).astype(np.float32)
        param = param - chain.update(noise, state, param)
    removed = int(state["0.removed"][0])
    assert 0.7 * tau < removed < tau
    assert removed < 0.17 * size  # of all directions, most are never touched

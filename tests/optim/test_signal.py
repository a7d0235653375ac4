"""Gradients that share a direction are told from those that do not; both pass as they came."""

import numpy as np
import pytest

from edge_train.optim.signal import Signal
from edge_train.optim.transforms import Adam, Chain, LearningRate


def after(gradients):
    """Return the state after these gradients, each of which passes as it came."""
    rule, block = Signal(), np.ones((1, 32), np.float32)
    state = rule.init(block)
    for gradient in gradients:
        np.testing.assert_array_equal(rule.update(gradient.copy(), state, block), gradient)
    return state


def drawn(count, signal, seed=0):
    """Return gradients of one direction with noise of length 1, as often as not in the signal."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((count, 1, 32)) / np.sqrt(32)
    return [(signal * np.eye(1, 32) + own).astype(np.float32) for own in noise]


@pytest.mark.parametrize("seed", range(5))
def test_gradients_of_one_direction_are_no_noise(seed):
    assert not Signal().is_noise(after(drawn(140, 1.0, seed)))


def test_gradients_without_a_direction_are_noise():
    # one in about six windows of noise alone lies an error above zero
    assert sum(Signal().is_noise(after(drawn(140, 0.0, seed))) for seed in range(10)) >= 6


def test_steps_that_overshoot_are_noise():
    back_and_forth = [np.float32((-1) ** n) * np.ones((1, 32), np.float32) for n in range(140)]
    assert Signal().is_noise(after(back_and_forth))


def test_few_gradients_say_nothing():
    assert not Signal().is_noise(after(drawn(100, 0.0)))


def test_gradients_of_zeros_are_noise():
    assert Signal().is_noise(after([np.zeros((1, 32), np.float32)] * 140))


def test_a_chain_asks_the_link_that_knows():
    noise, block = drawn(140, 0.0, 1), np.ones((1, 32), np.float32)
    for chain, sees in (
        (Chain((Signal(), Adam(), LearningRate(1.0, 100))), True),
        (Chain((Adam(), LearningRate(1.0, 100))), False),
    ):
        state = chain.init(block)
        for gradient in noise:
            chain.update(gradient.copy(), state, block)
        assert chain.is_noise(state) == sees

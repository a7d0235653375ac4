"""The last update of a run lands on the mean of its last iterates; others are as they came."""

import numpy as np
import pytest

from edge_train.optim.tail_mean import SHARE, TailMean


def iterates(spans, steps):
    """Return where a block is after each of some random updates, and where it ends without them."""
    rule, random = TailMean(spans), np.random.default_rng(0)
    block = np.ones((2, 3), np.float32)
    state = rule.init(block)
    plain, found = [], []
    for _ in range(steps):
        update = random.standard_normal((2, 3)).astype(np.float32)
        plain.append(block - update)
        block = block - rule.update(update, state, block)
        found.append(block)
    return found, plain


def test_a_run_ends_at_the_mean_of_its_last_quarter():
    found, plain = iterates(((0, 20),), 20)
    for own, expected in zip(found[:-1], plain[:-1], strict=True):
        np.testing.assert_array_equal(own, expected)
    tail = plain[20 - int(20 * SHARE) :]
    # sums of five float32 numbers of about 1
    np.testing.assert_allclose(found[-1], np.mean(tail, axis=0), atol=2e-6)


def test_a_run_of_one_step_ends_where_the_step_does():
    found, plain = iterates(((0, 1),), 1)
    np.testing.assert_allclose(found[-1], plain[-1], atol=1e-6)


def test_a_run_that_is_made_longer_at_its_end_ends_at_a_mean_twice():
    found, plain = iterates(((0, 8), (8, 16)), 16)
    np.testing.assert_allclose(found[7], np.mean(plain[6:8], axis=0), atol=2e-6)
    np.testing.assert_allclose(found[15], np.mean(plain[14:16], axis=0), atol=2e-6)


@pytest.mark.parametrize("done", [3, 7])
def test_a_run_that_is_made_longer_before_its_end_forgets_what_it_summed(done):
    found, plain = iterates(((0, 8), (done, 16)), 16)
    np.testing.assert_array_equal(found[7], plain[7])
    tail = plain[int(16 - SHARE * (16 - done)) :]
    np.testing.assert_allclose(found[15], np.mean(tail, axis=0), atol=2e-6)


def test_steps_after_the_end_are_as_they_came():
    found, plain = iterates(((0, 4),), 6)
    np.testing.assert_array_equal(found[-1], plain[-1])

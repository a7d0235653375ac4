"""What kill tests compute: a filter that finds a quadratic's least, a probe along past steps."""

import numpy as np

from edge_train.bench.bayes_filter import BayesFilter
from edge_train.bench.kill_tests import Probe
from edge_train.rng import Key, direction


def test_a_filter_that_is_told_exact_slopes_finds_the_answer_and_knows_it():
    random, count = np.random.default_rng(0), 12
    metric = np.diag(1.0 / np.arange(1, count + 1))
    answer = random.standard_normal(count)
    own = BayesFilter(None, np.eye(count), 5 * metric, np.zeros(count), np.eye(count))
    before = own.expected_gap
    for _ in range(60):
        root = np.linalg.cholesky(own.covariance + 1e-9 * np.eye(count))
        z = root @ random.standard_normal((count, 4))
        slopes = z.T @ metric @ (own.a - answer)
        own._learn(z, slopes, np.einsum("iq,ij,jq->q", z, metric, z))
    left = (own.a - answer) @ metric @ (own.a - answer)
    assert left < 0.1 * (answer @ metric @ answer)
    assert own.expected_gap < 0.5 * before


def test_a_probe_lies_along_past_steps_and_is_as_long_as_other_directions():
    probe, key, step = Probe(queries=4), Key(0, 3), np.zeros((1, 8), np.float32)
    step[0, 2] = -0.5
    drawn = [direction(key, query, "token", (1, 8)) for query in range(4)]
    for query in range(4):
        np.testing.assert_array_equal(probe(key, query, "token", (1, 8)), drawn[query])
    probe.add(step)
    np.testing.assert_array_equal(probe(key, 1, "token", (1, 8)), drawn[1])
    along = probe(key, 3, "token", (1, 8))
    np.testing.assert_allclose(along, -np.sqrt(8) * np.eye(1, 8, 2), rtol=1e-6)

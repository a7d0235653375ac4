"""Tokens that learn side by side are as they would be alone; draws have the metric's moments."""

import numpy as np

from edge_train.tasks.personalize.inversions import invert
from edge_train.tasks.personalize.metric_draws import metric_draws
from edge_train.tasks.personalize.objective import Personalize, build_cache

START = {"token": np.full((1, 3), 0.5, np.float32)}
JACOBIAN = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


class Linear:
    """A denoiser that answers J x; the first id of a prompt is the number that x should come to."""

    def __init__(self):
        self.calls = []

    def backward_each(self, batch, vectors, pulled=None):
        count = len(batch["latents"])
        self.calls.append(count)
        x = vectors["token"][:, 0]
        if pulled is None:
            wanted = batch["ids"][:, :1].astype(np.float32)
            pulled = 2 * (x - wanted) @ JACOBIAN.T
        gradient = pulled.reshape(count, 4) @ JACOBIAN
        return np.zeros(count, np.float32), {"token": gradient[:, None].astype(np.float32)}


def task(wanted):
    """Return a task whose only prompt has the number that its token should come to."""
    latents = np.zeros((1, 1, 2, 2), np.float32)
    cache = build_cache(latents, np.ones_like(latents), [[{"ids": np.array([wanted, -1])}]])
    signal = np.linspace(0.9, 0.1, 10, dtype=np.float32)
    return Personalize(cache, signal, "epsilon", (0, 10), 4, 4, {})


def test_every_token_comes_to_its_own_thing():
    found = invert(Linear(), [task(1), task(0)], START, steps=200, seeds=[3, 4])["token"]
    # from 0.5 away in steps of 0.1 at most: the mean of the last half is within one of them
    np.testing.assert_allclose(found[:, 0], [[1] * 3, [0] * 3], atol=0.1)


def test_a_token_is_as_it_would_be_alone():
    together = invert(Linear(), [task(1), task(2)], START, steps=20, seeds=[3, 4])["token"]
    alone = invert(Linear(), [task(2)], START, steps=20, seeds=[4])["token"]
    np.testing.assert_allclose(together[1:], alone, rtol=1e-5)  # products of other shapes


def test_a_step_takes_one_sample_of_each():
    runtime, seen = Linear(), []
    invert(runtime, [task(1)] * 3, START, steps=5, seeds=[0, 1, 2], watch=seen.append)
    assert runtime.calls == [3] * 5
    assert seen == [0, 1, 2, 3, 4]


def test_draws_have_the_metric_as_their_second_moments():
    drawn = metric_draws(Linear(), task(1), START, 4000, together=100)["token"].astype(float)
    exact = JACOBIAN.T.astype(float) @ JACOBIAN / 4
    # a moment of normals has a deviation below sqrt(2) of the largest; of 4,000 draws 2.2 %
    np.testing.assert_allclose(drawn.T @ drawn / 4000, exact, atol=0.1 * exact.max())


def test_draws_are_the_same_whenever_they_are_made():
    first = metric_draws(Linear(), task(1), START, 7, together=3)["token"]
    again = metric_draws(Linear(), task(1), START, 7, together=3)["token"]
    assert first.tobytes() == again.tobytes()
    assert first.shape == (7, 3)

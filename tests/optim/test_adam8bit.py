"""Moments in a byte: how near they are to float ones, and that they still can fall."""

import numpy as np
import pytest
from recipes import transform_of

from edge_train.optim import moments8bit
from edge_train.optim.adam8bit import SMALLEST, Adam8bit
from edge_train.optim.transforms import Adam, for_block

SIZE = 20_000


def trained(transform, gradients):
    param = np.zeros(SIZE, np.float32)
    state = transform.init(param)
    for gradient in gradients:
        update = transform.update(gradient, state, param)
    return update, state


def second(state):
    return moments8bit.read(state, "second", slice(0, len(state["second"])))


def noisy(steps, spread=1.0, seed=0):
    """Yield gradients of coordinates whose sizes are spread over orders of magnitude."""
    draw = np.random.default_rng(seed)
    size = np.exp(spread * draw.standard_normal(SIZE))
    for _ in range(steps):
        yield (size * (0.5 + draw.standard_normal(SIZE))).astype(np.float32)


@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0])
def test_updates_are_near_those_of_float_moments(spread):
    exact, _ = trained(Adam(), noisy(200, spread))
    ours, _ = trained(Adam8bit(), noisy(200, spread))
    difference = ours - exact
    assert np.linalg.norm(difference) < 0.2 * np.linalg.norm(exact)
    assert abs(difference.mean()) < 0.03 * np.abs(exact).mean()  # 1 / root is convex
    assert np.abs(ours).max() < 2 * np.abs(exact).max()  # no second moment fell to zero


def test_second_moments_fall_as_fast_as_float_ones():
    """Rounded to the nearest code they would stay: a step takes 0.1 % off, a code is 6 to 12 %."""
    gradients = [*noisy(20), *[np.zeros(SIZE, np.float32)] * 500]
    _, exact = trained(Adam(), gradients)
    _, ours = trained(Adam8bit(), gradients)
    assert second(ours).sum() == pytest.approx(exact["second"].sum(), rel=0.02)
    levels = moments8bit.SECOND.values(np.arange(256))
    nearest = levels[-1]
    for _ in range(500):
        nearest = levels[np.abs(levels - 0.999 * nearest).argmin()]
    assert nearest == levels[-1]


def test_a_steady_gradient_is_reached_by_the_mean():
    gradient = np.linspace(-1, 1, SIZE, dtype=np.float32)
    update, _ = trained(Adam8bit(), [gradient] * 100)
    far = np.abs(gradient) > 0.01
    assert np.mean(update[far] * np.sign(gradient[far])) == pytest.approx(1, abs=0.02)


def errors(rule, step, gradient):
    """Return what 8 bits add to first moments in one step, the first one of a fresh state."""
    state = rule.init(gradient)
    state["count"][0] = step
    rule.update(gradient.copy(), state, gradient)
    kept = moments8bit.read(state, "first", slice(None)).reshape(-1)
    return (kept - np.float32(0.1) * gradient) / np.abs(gradient)


@pytest.mark.parametrize(
    "other",
    [Adam8bit(seed=7).rule("b"), Adam8bit(seed=8).rule("a")],
    ids=["another block", "another seed"],
)
def test_blocks_and_seeds_do_not_share_their_rounding(other):
    """Errors of equal gradients were equal, in every block, step and run.

    Blocks share a table of draws and shift it, each by a draw of its own. In one step that leaves a
    correlation of deviation 0.45 or less, of either sign: 0.02 on average over 500 steps.
    """
    gradient = np.random.default_rng(0).standard_normal(SMALLEST).astype(np.float32)
    rule = Adam8bit(seed=7).rule("a")
    found = [
        np.corrcoef(errors(rule, step, gradient), errors(other, step, gradient))[0, 1]
        for step in range(500)
    ]
    assert abs(np.mean(found)) < 0.1
    again = errors(Adam8bit(seed=7).rule("a"), 3, gradient)
    np.testing.assert_array_equal(errors(rule, 3, gradient), again)


@pytest.mark.parametrize("name", ["adamw8bit", "q-galore"])
def test_every_block_of_a_run_draws_by_its_own_name(name):
    """Through chains, projections and `MatricesApart`: equal blocks get unequal moments."""
    keys = {"learning_rate": 0.1, "steps": 9, "schedule": "constant", "seed": 5}
    low = {"rank": 32, "refresh_every": 9, "scale": 1.0} if name == "q-galore" else {}
    transform = transform_of(name, **keys, **low)
    gradient = np.random.default_rng(0).standard_normal((160, 128)).astype(np.float32)
    states = []
    for block in ("a.weight", "b.weight", "embed_tokens", "embed_positions", "a.weight"):
        rule = for_block(transform, block)
        state = rule.init(gradient)
        rule.update(gradient.copy(), state, gradient)
        states.append(state["0.inner.second" if "0.inner.second" in state else "0.second"])
    np.testing.assert_array_equal(states[0], states[4])
    assert np.mean(states[0] != states[1]) > 0.1
    assert np.mean(states[2] != states[3]) > 0.1


def test_moments_too_small_for_an_inverse_are_kept_without_a_warning():
    """Of 1e-20 a square is subnormal; scales of such were inverted to infinity."""
    _, state = trained(Adam8bit(), [np.full(SIZE, 1e-20, np.float32)] * 3)
    assert (state["second_scale"] > 0).all() and np.isfinite(1 / state["second_scale"]).all()
    assert moments8bit.read(state, "first", slice(0, 10)).min() == pytest.approx(2.71e-21, rel=0.2)


def test_state_takes_little_more_than_two_bytes_a_coordinate():
    state = Adam8bit().init(np.zeros((512, 512), np.float32))
    assert sum(value.nbytes for value in state.values()) < 2.04 * 512 * 512


def test_small_blocks_keep_float_moments():
    state = Adam8bit().init(np.zeros(SMALLEST - 1, np.float32))
    assert state["first"].dtype == np.float32


@pytest.mark.parametrize("rows", [10, 3000])
def test_rotated_moments_are_those_of_the_other_basis(rows):
    draw = np.random.default_rng(0)
    rotation = np.linalg.qr(draw.standard_normal((4, 4)))[0].astype(np.float32)
    exact, ours, param = Adam(), Adam8bit(), np.zeros((rows, 4), np.float32)
    states = exact.init(param), ours.init(param)
    gradient = draw.standard_normal((rows, 4)).astype(np.float32)
    for transform, state in zip((exact, ours), states, strict=True):
        transform.update(gradient, state, param)
        transform.rotate(state, rotation)
    np.testing.assert_allclose(states[0]["first"], 0.1 * gradient @ rotation.T, atol=1e-6)
    assert (states[0]["second"] >= 0).all()
    following = [t.update(gradient, s, param) for t, s in zip((exact, ours), states, strict=True)]
    assert np.linalg.norm(following[1] - following[0]) < 0.15 * np.linalg.norm(following[0])


@pytest.mark.parametrize("codes", [moments8bit.FIRST, moments8bit.SECOND])
def test_codes_are_read_back_and_values_between_them_are_right_on_average(codes):
    count = 127 if codes is moments8bit.FIRST else 255
    levels = codes.values(np.arange(count + 1))
    assert levels[0] == 0 and (np.diff(levels) > 0).all() and 0.9999 < levels[-1] <= 1
    draw = np.random.default_rng(0)
    scale = np.full((1, 1), 2, np.float32)

    def rounded(values):
        noise = draw.integers(0, 2**32, values.shape, np.uint32)
        return codes.values(codes.rounded(2 * values, scale, noise))

    np.testing.assert_array_equal(rounded(levels[None, :-1])[0], levels[:-1])
    for value in (levels[1] / 3, 1e-4, 0.3, 1 - 2**-15):
        many = np.full((1, 40_000), value, np.float32)
        gap = np.diff(levels)[np.searchsorted(levels, value, "right") - 1]
        assert rounded(many).mean(dtype=np.float64) == pytest.approx(value, abs=0.02 * float(gap))

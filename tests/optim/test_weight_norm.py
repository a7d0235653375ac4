"""GradNormLoRP does what its formula says, for every kind of gradient and of stored weights."""

import numpy as np
import pytest
from linear_loss import loop_of
from recipes import recipe_for

from edge_train.arrays.factored import Factors, Whole, dense
from edge_train.arrays.parameters import Int4Parameters, Int8Parameters, Parameters
from edge_train.methods import rules
from edge_train.methods.exact import links
from edge_train.optim.transforms import for_block
from edge_train.rng import Key

SHAPES = [(24, 10), (10, 24), (16, 16)]
RANK, SCALE, RATE, EVERY = 4, 0.5, 0.03, 3
LOW = {"rank": RANK, "refresh_every": EVERY, "scale": SCALE, "learning_rate": RATE}


def rule(name="gradnormlorp", decay=0.0, block="layers.0.w", **keys):
    recipe = recipe_for(
        "language-model", steps=99, schedule="constant", weight_decay=decay, **{**LOW, **keys}
    )
    return for_block(rules.get(name).build(recipe, links(recipe)), block)


def steps_of(rule, parameters, gradients, kind=np.asarray):
    state = rule.init(parameters.for_transform("w"))
    for step, gradient in enumerate(gradients):
        update = rule.update(kind(gradient), state, parameters.for_transform("w"))
        parameters.subtract("w", update, Key(0, step))
    return parameters["w"], state


def as_factors(gradient):
    left, values, right = np.linalg.svd(gradient.astype(np.float64), full_matrices=False)
    return Factors((left * values).T.astype(np.float32), right.astype(np.float32))


KINDS = {"array": np.copy, "factors": as_factors, "whole": lambda g: Whole(g.copy())}


def drawn(shape, count=7, seed=0):
    draw = np.random.default_rng(seed)
    start = draw.standard_normal(shape).astype(np.float32)
    return start, draw.standard_normal((count, *shape)).astype(np.float32)


class Twin:
    """The formula in float64: W = g V / |V|, both trained by Adam, V in singular vectors."""

    def __init__(self, start, decay):
        self.v = start.astype(np.float64)
        self.g = np.linalg.norm(self.v, axis=1)
        self.moments, self.decay, self.basis, self.count = {}, decay, None, 0

    def adam(self, name, x):
        first, second = self.moments.get(name, (0.0, 0.0))
        first, second = 0.9 * first + 0.1 * x, 0.999 * second + 0.001 * x**2
        self.moments[name] = first, second
        first, second = first / (1 - 0.9**self.count), second / (1 - 0.999**self.count)
        return first / (np.sqrt(second) + 1e-8)

    def vectors(self, matrix):
        """The right singular vectors, with signs that follow those before."""
        found = np.linalg.svd(matrix)[2][:RANK]
        if self.basis is not None:
            found[(found * self.basis).sum(axis=1) < 0] *= -1
        return found

    def step(self, gradient):
        n = np.linalg.norm(self.v, axis=1)
        direction = self.v / n[:, None]
        grad_g = (gradient * direction).sum(axis=1)
        grad_v = (self.g / n)[:, None] * (gradient - grad_g[:, None] * direction)
        standing = grad_v if grad_v.shape[0] >= grad_v.shape[1] else grad_v.T
        if self.count % EVERY == 0:
            self.basis = self.vectors(standing)
        self.count += 1
        lifted = SCALE * self.adam("v", standing @ self.basis.T) @ self.basis
        lifted = lifted if grad_v.shape[0] >= grad_v.shape[1] else lifted.T
        self.g = (1 - RATE * self.decay) * (self.g - RATE * self.adam("g", grad_g))
        v = self.v - RATE * lifted
        self.v = self.g[:, None] * v / np.linalg.norm(v, axis=1, keepdims=True)
        return self.v


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", [0.0, 2.0], ids=["plain", "decay"])
def test_steps_are_those_of_the_formula(shape, kind, decay):
    """Gradients of rank 4 and some: the search for vectors then finds those of the SVD."""
    start, noise = drawn(shape)
    draw = np.random.default_rng(9)
    left, right = draw.standard_normal((shape[0], RANK)), draw.standard_normal((RANK, shape[1]))
    strong = left @ np.diag([40.0, 25.0, 14.0, 8.0]) @ right
    gradients = (strong + 0.1 * noise).astype(np.float32)
    twin = Twin(start, decay)
    for gradient in gradients:
        wanted = twin.step(gradient.astype(np.float64))
    weights, state = steps_of(rule(decay=decay), Parameters({"w": start}), gradients, KINDS[kind])
    moved = np.linalg.norm(wanted - start)
    assert moved > 1
    assert np.linalg.norm(weights - wanted) < 0.01 * moved  # the search stops after two passes
    np.testing.assert_allclose(state["g"], twin.g, rtol=1e-3)


@pytest.mark.parametrize("name", ["gradnormlorp", "gradnormlorp8bit"])
def test_lengths_of_rows_are_the_trained_ones_and_directions_learn_beside_them(name):
    start, gradients = drawn((60, 96))
    gradients = np.repeat(gradients[:1], 20, axis=0)
    weights, state = steps_of(rule(name), Parameters({"w": start}), gradients)
    lengths = np.linalg.norm(weights.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, np.abs(state["g"]), rtol=1e-5)
    before = np.linalg.norm(start, axis=1)
    cosines = (weights * start).sum(axis=1) / (lengths * before)
    assert np.abs(lengths - before).max() > RATE and cosines.min() < 0.999


def test_there_are_three_numbers_a_row_beside_what_galore_keeps():
    param = np.ones((300, 96), np.float32)
    sizes = [
        sum(part.nbytes for part in rule(name).init(param).values())
        for name in ("gradnormlorp", "galore")
    ]
    few = sizes[0] - sizes[1] - 12 * len(param)
    assert 0 <= few < 64  # counts of steps


@pytest.mark.parametrize("kind", [Int8Parameters, Int4Parameters], ids=["int8", "int4"])
@pytest.mark.parametrize("name", ["gradnormlorp", "gradnormlorp8bit"])
def test_weights_in_few_bits_follow_those_in_float32(kind, name):
    """Right on average: the mean of 40 roundings is nearer than one of them, and no shorter."""
    start, gradients = drawn((40, 64), 6)
    start = kind({"w": start})["w"]  # levels
    wanted, exact = steps_of(rule(name), Parameters({"w": start}), gradients)
    means = np.zeros_like(start)
    for seed in range(40):
        own = kind({"w": start})
        parts = rule(name)
        state = parts.init(own.for_transform("w"))
        for step, gradient in enumerate(gradients):
            param = own.for_transform("w")
            own.subtract("w", parts.update(gradient.copy(), state, param), Key(seed, step))
        one = np.linalg.norm(own["w"] - wanted)
        means += own["w"] / 40
    np.testing.assert_allclose(state["g"], exact["g"], rtol=0.05)
    apart = means - wanted
    assert np.linalg.norm(apart) < 0.4 * one
    assert abs((apart * wanted).sum()) < 0.006 * np.square(wanted).sum()


def test_rows_of_zeros_are_trained_and_get_a_length():
    start, gradients = drawn((20, 12), 4)
    start[3] = 0
    gradients[:, 5] = 0  # and a row without a gradient stays
    weights, state = steps_of(rule(), Parameters({"w": start}), gradients)
    assert np.isfinite(weights).all()
    assert np.linalg.norm(weights[3]) == pytest.approx(abs(state["g"][3]), rel=1e-5)
    assert abs(state["g"][3]) > 0.1 * RATE
    zeros, state = steps_of(rule(), Parameters({"w": np.zeros_like(start)}), 0 * gradients)
    assert not zeros.any() and not state["g"].any()


def test_a_length_passes_through_zero():
    """A row that shrinks at every step turns round, and W = g V / |V| goes on."""
    start = np.full((16, 12), 1e-3, np.float32)
    gradients = np.ones((9, 16, 12), np.float32)
    still = rule(scale=0.0)  # of a gradient along a row nothing is left but rounding
    weights, state = steps_of(still, Parameters({"w": start}), gradients)
    assert (weights < 0).all() and (state["g"] < 0).all()
    wanted = np.linalg.norm(start[0]) - 9 * RATE
    np.testing.assert_allclose(state["g"], wanted, rtol=1e-3)
    np.testing.assert_allclose(weights, wanted / np.sqrt(12), rtol=1e-3)


def test_a_batch_in_parts_is_the_whole_batch_where_the_basis_is_as_wide_as_the_matrix_but_one():
    """What parts hold is a vector, never taken for the matrix, whatever its sides."""
    start, gradients = drawn((24, RANK + 1), 2)
    parts = rule()
    parameters = Parameters({"w": start})
    state = parts.init(start)
    for gradient in gradients:
        low = sum(
            parts.project(share, state, start) for share in (0.25 * gradient, 0.75 * gradient)
        )
        assert low.ndim == 1
        start = start - dense(parts.update_projected(low, state, start))
    wanted, _ = steps_of(rule(), parameters, gradients)
    assert np.abs(start - wanted).max() < 1e-4


def test_resting_counts_for_both_rates():
    loop = loop_of("gradnormlorp", rank=4, refresh_every=5, scale=1.0, learning_rate=0.01)
    state = loop.state["tall"]
    loop.rules["tall"].rest(state, 3)
    counts = [int(value[0]) for name, value in state.items() if name.endswith("1.count")]
    assert counts == [3, 3]

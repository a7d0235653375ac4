"""A step in micro-batches is the step of the whole batch, and holds only what its rule reads."""

from types import SimpleNamespace

import numpy as np
import pytest
from recipes import transform_of

from edge_train.arrays.factored import Factors, dense
from edge_train.arrays.parameters import Int8Parameters, Parameters
from edge_train.errors import NonFinite
from edge_train.estimators.backprop import Backprop
from edge_train.loop import Loop
from edge_train.optim.sums import Sums
from edge_train.protocols import Share
from edge_train.rng import Key

RANK, SAMPLES = 4, 7
SHAPES = {"wide": (16, 40), "tall": (40, 16), "embed_tokens": (300, 16), "norm": (16,)}


class Linear:
    """A loss that is linear in every block; of a matrix the gradient is factors."""

    def __init__(self, int8):
        draw = np.random.default_rng(3)
        blocks = {n: draw.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}
        self.parameters = (Int8Parameters if int8 else Parameters)(blocks)
        self.seen = []
        self.poisoned = None

    def backward(self, batch, apply):
        self.seen.append(len(batch["left"]))
        count = np.float32(len(batch["left"]))
        for name, shape in SHAPES.items():
            left = batch["left"][:, : shape[0]].copy()
            if name == self.poisoned and len(self.seen) == 2:
                left[0, 0] = np.nan
            right = batch["right"][:, : shape[-1]] / count
            apply(name, Factors(left, right) if len(shape) == 2 else left.mean(axis=0))
        return batch["left"].sum(axis=1)


class Echo:
    def update(self, update, state, param):
        return update


class Task:
    def batch(self, key):
        draw = np.random.default_rng(key.step)
        return {
            n: draw.standard_normal((SAMPLES, 300)).astype(np.float32) for n in ("left", "right")
        }


def loop_of(method, int8, **keys):
    transform = transform_of(method, schedule="constant", steps=9, **keys)
    guard = SimpleNamespace(check=lambda step: SimpleNamespace(peak_bytes=1, resident_bytes=1))
    rest = {"guard": guard, "journal": None, "checkpoints": None, "seed": 0, "patience": 0}
    return Loop(Linear(int8), Task(), Backprop(), transform, evaluate_every=1, **rest)


LOW = {"rank": RANK, "refresh_every": 5, "scale": 1.0}
KEYS = {
    "adamw": {"weight_decay": 0.1},
    "adamw8bit": {},
    "galore": LOW,
    "q-galore": {**LOW, "weight_decay": 0.1},
    "dct-adamw": {**LOW, "refresh_every": 3},
    "apollo": LOW,
    "apollo-mini": {**LOW, "rank": 1},
    "frugal": LOW,
}


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("size", [1, 3, SAMPLES])
@pytest.mark.parametrize("method", KEYS)
def test_a_step_in_parts_is_the_step_of_the_whole_batch(method, size, int8):
    """After a first step of the whole batch, which finds both runs the same basis."""
    whole, parts = (loop_of(method, int8, learning_rate=0.01, **KEYS[method]) for _ in range(2))
    for loop in (whole, parts):
        loop.step(0)
    parts.estimator = Backprop(size)
    records = [loop.step(1) for loop in (whole, parts)]
    assert parts.runtime.seen[1:] == {1: [1] * 7, 3: [3, 3, 1], SAMPLES: [7]}[size]
    assert records[0].loss == pytest.approx(records[1].loss, rel=1e-5)
    assert records[1].backwards == SAMPLES
    assert not parts.sums.held
    for name in SHAPES:
        one, other = whole.runtime.parameters[name], parts.runtime.parameters[name]
        apart = np.abs(one - other)
        if int8 and one.ndim == 2:  # a rounding may fall to the other side, seldom
            level = whole.runtime.parameters.stored()[f"{name}:scale"][:, None]
            assert (apart < 1.001 * level).all() and (apart > 0.5 * level).mean() < 0.01
        else:
            assert apart.max() < 1e-5, name
        for part, value in whole.state[name].items():
            if value.dtype == np.float32:
                np.testing.assert_allclose(parts.state[name][part], value, atol=1e-5)


def held_of(total):
    if isinstance(total, Factors):
        return total.left.size + total.right.size
    return total.size


def kept_by(method, **keys):
    """Return how many numbers are held after the second of three parts."""
    loop = loop_of(method, True, learning_rate=0.01, **keys)
    held = {}

    def look(name, part):
        loop.apply(Key(0, 0), name, part)
        if not part.last:
            sums = loop.sums.held.items()
            held.update({n: held_of(total) for n, total in sums})

    Backprop(3).estimate(loop.runtime, loop.task, loop.task.batch(Key(0, 0)), Key(0, 0), look)
    return held


@pytest.mark.parametrize("method", ["galore", "q-galore", "dct-adamw"])
def test_a_low_rank_rule_holds_projections_and_no_matrix_between_the_parts(method):
    own = {"embed_tokens": 6 * 316, "norm": 16}
    assert kept_by(method, **LOW) == {"wide": 40 * RANK, "tall": 40 * RANK, **own}


@pytest.mark.parametrize("method", ["adamw", "apollo", "frugal"])
def test_a_rule_that_reads_the_whole_gradient_holds_the_smaller_of_factors_and_matrix(method):
    """Six of seven samples are seen; seven are still fewer numbers than 16 x 40."""
    keys = {} if method == "adamw" else LOW
    matrices = 6 * (16 + 40)
    expected = {"wide": matrices, "tall": matrices, "embed_tokens": 6 * 316, "norm": 16}
    assert kept_by(method, **keys) == expected


def test_factors_become_their_product_when_they_would_hold_more_numbers_than_it():
    draw, sums = np.random.default_rng(0), Sums()
    param, expected, held = np.zeros((8, 12), np.float32), 0, []
    for number in range(4):  # 3 tokens each: 60, 120, ... numbers against 96
        pair = [draw.standard_normal((3, n)).astype(np.float32) for n in param.shape]
        share = Share(Factors(*pair), 0.25, last=number == 3)
        update = sums.add("w", share, Echo(), {}, param)
        expected = expected + 0.25 * pair[0].T @ pair[1]
        held += [held_of(total) for total in sums.held.values()]
    assert held == [60, 96, 96]
    np.testing.assert_allclose(dense(update), expected, atol=1e-5)


def test_a_basis_is_found_from_the_first_part_and_stays_for_the_step():
    one, other = (loop_of("dct-adamw", False, learning_rate=0.01, **LOW) for _ in range(2))
    batch = one.task.batch(Key(0, 0))
    first = {name: values[:3] for name, values in batch.items()}
    Backprop().estimate(one.runtime, None, first, Key(0, 0), lambda *a: one.apply(Key(0, 0), *a))
    Backprop(3).estimate(
        other.runtime, None, batch, Key(0, 0), lambda *a: other.apply(Key(0, 0), *a)
    )
    for name in ("wide", "tall"):
        expected, found = (loop.state[name] for loop in (one, other))
        for part in ("0.basis.indices", "0.refreshes", "0.due", "0.count"):
            np.testing.assert_array_equal(found[part], expected[part])


@pytest.mark.parametrize("method", ["adamw", "q-galore"])
def test_parts_of_a_step_that_was_not_finite_are_dropped(method):
    loop = loop_of(method, True, learning_rate=0.01, **(LOW if method == "q-galore" else {}))
    start = loop.runtime.parameters.copy()
    state = {n: {k: v.copy() for k, v in s.items()} for n, s in loop.state.items()}
    loop.estimator = Backprop(3)
    loop.runtime.poisoned = "tall"
    with pytest.raises(NonFinite, match="tall"):
        loop.step(0)
    assert loop.sums.held
    for name, block in loop.runtime.parameters.stored().items():
        np.testing.assert_array_equal(block, start[name])
    snapshot = SimpleNamespace(parameters=start, state=state, best=None, step=0)
    loop.restore(snapshot, [])
    assert not loop.sums.held
    for name in SHAPES:
        for part, value in loop.state[name].items():
            np.testing.assert_array_equal(value, state[name][part])

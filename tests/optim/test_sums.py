"""A step in micro-batches is the step of the whole batch, and holds only what its rule reads."""

from types import SimpleNamespace

import numpy as np
import pytest
from linear_loss import SHAPES, loop_of

from edge_train.arrays.factored import Factors, Lookups, Remade, dense
from edge_train.arrays.parameters import Int8Parameters
from edge_train.errors import NonFinite
from edge_train.estimators.backprop import Backprop
from edge_train.optim.sums import Sums, looked_up_numbers
from edge_train.protocols import Share
from edge_train.rng import Key

RANK = 4


class Echo:
    def update(self, update, state, param):
        return update


LOW = {"rank": RANK, "refresh_every": 5, "scale": 1.0}


def held_of(total):
    if isinstance(total, Factors):
        return total.left.size + total.right.size
    return total.size


def kept_by(method, **keys):
    """Return how many numbers are held after the second of three parts."""
    loop = loop_of(method, Int8Parameters, learning_rate=0.01, **keys)
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
    one, other = (loop_of("dct-adamw", learning_rate=0.01, **LOW) for _ in range(2))
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
    loop = loop_of(
        method, Int8Parameters, learning_rate=0.01, **(LOW if method == "q-galore" else {})
    )
    start = loop.runtime.parameters.copy()
    state = {n: {k: v.copy() for k, v in s.items()} for n, s in loop.state.items()}
    loop.estimator = Backprop(3)
    loop.runtime.poisoned = "tall"
    with pytest.raises(NonFinite, match="tall"):
        loop.step(0)
    assert loop.sums.held
    for name, block in loop.runtime.parameters.stored().items():
        np.testing.assert_array_equal(block, start[name])
    snapshot = SimpleNamespace(parameters=start, state=state, best=None, step=0, history="")
    loop.restore(snapshot, [])
    assert not loop.sums.held
    for name in SHAPES:
        for part, value in loop.state[name].items():
            np.testing.assert_array_equal(value, state[name][part])


@pytest.mark.parametrize(("rows", "is_output"), [(500, False), (500, True), (12, False)])
def test_a_plan_counts_what_the_sum_of_a_table_holds_when_every_token_is_another(rows, is_output):
    width, tokens, parts = 4, 10, 3
    draw, sums, table = np.random.default_rng(0), Sums(), np.zeros((rows, width), np.float32)
    ids = draw.permutation(max(rows, tokens * parts))[: tokens * parts] % rows
    for part in range(parts):
        looked_up = np.unique(ids[part * tokens :][:tokens])
        values = np.ones((len(looked_up), width), np.float32)
        gradient = Lookups.of(looked_up, values, rows)
        if is_output:
            left, right = np.ones((tokens, rows), np.float32), np.ones((tokens, width), np.float32)
            rest = Remade([lambda some, left=left: left[:, some]], right, rows)
            gradient = Lookups(looked_up, values, rest)
        sums.add("table", Share(gradient, 1 / parts, last=False), Echo(), {}, table)
    total = sums.held["table"]
    held = total.numbers if isinstance(total, Factors) else total.size
    assert held == looked_up_numbers((rows, width), tokens * parts, is_output=is_output)

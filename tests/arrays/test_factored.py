"""Updates of factors equal those of their product, and neither product nor update is ever made."""

import subprocess
import sys

import numpy as np
import pytest

from edge_train.arrays.factored import (
    Factors,
    Lookups,
    Remade,
    Streamed,
    Whole,
    added,
    all_finite,
    dense,
    tiles,
)
from edge_train.arrays.parameters import Int8Parameters, Parameters
from edge_train.errors import NonFinite
from edge_train.optim.adam8bit import Adam8bit
from edge_train.optim.apollo import Apollo
from edge_train.optim.bases import Columns, RandomVectors, TopVectors
from edge_train.optim.low_rank import LowRank
from edge_train.optim.normalized import Normalized
from edge_train.optim.orthogonal import OrthogonalMomentum
from edge_train.optim.racs import Racs
from edge_train.optim.sums import Sums
from edge_train.optim.transforms import Adam, Chain, LearningRate, WeightDecay
from edge_train.optim.weight_norm import WeightNorm
from edge_train.protocols import Share
from edge_train.rng import Key

SHAPES = [(70, 24), (24, 70), (40, 40)]
RULES = {
    "adam": Adam,
    "galore": lambda: LowRank(Adam(), TopVectors(4), 3, 0.5),
    "q-galore": lambda: LowRank(Adam8bit(), TopVectors(4, packed=True), 3, adaptive=True),
    "dct-adamw": lambda: LowRank(Adam(), Columns(4, of="dct"), 1, moments="rotate"),
    "columns": lambda: LowRank(Adam(), Columns(4), 2),
    "frugal": lambda: LowRank(Adam(), Columns(4, by="chance"), 3, moments="reset", remainder=0.1),
    "frugal-sgd": lambda: LowRank(Adam(), Columns(4), 3, remainder=0.1, remainder_by="sgd"),
    "fira": lambda: LowRank(Adam(), TopVectors(4), 3, remainder=1.0, remainder_by="length"),
    "sumo": lambda: LowRank(
        OrthogonalMomentum(),
        TopVectors(4),
        3,
        moments="rotate",
        remainder=1.0,
        remainder_by="sgd",
    ),
    "gradnormlorp": lambda: WeightNorm(
        Chain((LowRank(Adam(), TopVectors(4), 3, 0.5), LearningRate(0.1, 9))),
        Chain((Adam(), LearningRate(0.1, 9))),
        4,
    ),
    "scale": Normalized,
    "scale-columns": lambda: Normalized("columns"),
    "scale-momentum": lambda: Normalized(momentum=0.9),
    "racs": Racs,
    "apollo": lambda: Apollo(Adam(), RandomVectors(4), 3),
    "apollo-mini": lambda: Apollo(Adam(), RandomVectors(1), 3, by="tensor"),
}


def factors(shape, tokens=9, seed=0):
    draw = np.random.default_rng(seed)
    left, right = draw.standard_normal((tokens, shape[0])), draw.standard_normal((tokens, shape[1]))
    return Factors(left.astype(np.float32), right.astype(np.float32))


def rounding(product):
    """Return the most by which float32 sums of the products can be off, in whatever order."""
    units = len(product.left) * 2.0**-24
    return units * (np.abs(product.left).T @ np.abs(product.right))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_an_update_of_factors_is_the_textbook_one_to_rounding(name, shape):
    for step in range(7):  # else a sign could be another one on another processor
        gradient = factors(shape, seed=step)
        assert (np.abs(gradient[:]) > 10 * rounding(gradient)).all()
    chain = Chain((RULES[name](), WeightDecay(0.1), LearningRate(0.01, 9, 0.1)))
    start = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    results = []
    for lazy in (False, True):
        parameters = Parameters({"w": start})
        state = chain.init(start)
        for step in range(7):
            gradient = factors(shape, seed=step)
            update = chain.update(gradient if lazy else gradient[:], state, parameters["w"])
            assert isinstance(update, Whole) is not lazy
            parameters.subtract("w", update, Key(0, step))
        results.append(parameters["w"] - start)
    assert np.linalg.norm(results[0]) > 0.1
    tolerance = 5e-3 if name == "q-galore" else 2e-4  # a 4-bit code may fall to the other side
    error = np.linalg.norm(results[0] - results[1])
    assert error < tolerance * np.linalg.norm(results[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_a_left_factor_that_is_made_again_gives_the_update_of_one_that_is_there(name, shape):
    results = []
    for made in (False, True):
        parameters, state = Parameters({"w": np.zeros(shape)}), RULES[name]().init(np.zeros(shape))
        for step in range(4):
            gradient = factors(shape, seed=step)
            if made:
                makes = [
                    lambda rows, some=part: some[:, rows] for part in np.split(gradient.left, 3)
                ]
                gradient = Remade(makes, gradient.right, shape[0])
            update = RULES[name]().update(gradient, state, parameters["w"])
            parameters.subtract("w", update, Key(0, step))
        results.append(parameters["w"])
    tolerance = 5e-3 if name == "q-galore" else 2e-4  # a 4-bit code may fall to the other side
    assert np.linalg.norm(results[0]) > 0
    assert np.linalg.norm(results[0] - results[1]) < tolerance * np.linalg.norm(results[0])


def test_gradients_whose_left_factor_is_made_again_are_added_to_others():
    """What is scaled was scaled before, and nothing is made that nobody reads."""
    made, plain, read = factors((50, 6), seed=1), factors((50, 6), seed=2), []
    remade = Remade([lambda rows: read.append(rows) or made.left[:, rows]], made.right, 50)
    remade.scale(3.0)
    table = Lookups.of(np.array([2, 7]), np.ones((2, 6), np.float32), 50)
    total = added([plain, remade, table])
    assert not read and all_finite(total) and not read
    expected = plain[:] + 3 * made[:] + table[:]
    np.testing.assert_allclose(total[:], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(total[4:9], expected[4:9], rtol=1e-5, atol=1e-5)
    some = np.array([1, 7, 40])
    np.testing.assert_allclose(total[some], expected[some], rtol=1e-5, atol=1e-5)
    thin = np.ones((6, 2), np.float32)
    np.testing.assert_allclose(total @ thin, expected @ thin, rtol=1e-4, atol=1e-4)
    assert remade.norm() == pytest.approx(3 * np.linalg.norm(made[:]), rel=1e-5)
    remade.right[0, 0] = np.nan
    assert not all_finite(remade)


def test_adam_in_8_bits_takes_factors_in_rows_to_the_same_moments():
    shape, rule = (300, 96), Adam8bit()
    param = np.zeros(shape, np.float32)
    whole, rows = rule.init(param), rule.init(param)
    for step in range(3):
        gradient = factors(shape, seed=step)
        expected = rule.update(gradient[:], whole, param)
        np.testing.assert_allclose(dense(rule.update(gradient, rows, param)), expected, 0.2, 1e-3)
    same = np.mean(whole["first"] == rows["first"])
    assert same > 0.99  # rounding of the product may move a code


def test_many_tokens_rank_and_measure_as_few_do():
    """With more tokens than rows the inner products of factors would cost more; same numbers."""
    for tokens in (5, 200):
        product = factors((60, 30), tokens)
        assert product.norm() == pytest.approx(np.linalg.norm(product[:]), rel=1e-5)
        for of in ("gradient", "dct"):
            basis = Columns(6, of=of)
            states = basis.init(30), basis.init(30)
            for state, matrix in zip(states, (product, product[:]), strict=True):
                basis.refresh(matrix, state, 0)
            np.testing.assert_array_equal(states[0]["indices"], states[1]["indices"])


def test_parts_cover_every_row_once_and_respect_a_multiple():
    shape, seen = (1000, 900), []
    for rows in tiles(shape, 64):
        seen += range(rows.start, rows.stop)
        assert rows.start % 64 == 0
    assert seen == list(range(1000))


def test_int8_weights_take_a_lazy_update_as_they_take_an_array():
    draw = np.random.default_rng(0)
    start = draw.standard_normal((48, 64)).astype(np.float32)
    update = factors((48, 64))
    update.scale(1e-3)
    moved = []
    for given in (dense(update), update, Streamed(update.shape, update.parts())):
        parameters = Int8Parameters({"w": start})
        before = parameters["w"]
        parameters.subtract("w", given, Key(3, 0))
        moved.append(parameters["w"] - before)
    np.testing.assert_array_equal(moved[0], moved[1])
    np.testing.assert_array_equal(moved[0], moved[2])


def test_a_decay_shrinks_int8_weights_that_no_transform_can_read():
    parameters = Int8Parameters({"w": np.full((64, 64), 0.5, np.float32)})
    chain = Chain((LowRank(Adam(), TopVectors(2), 9), WeightDecay(0.1), LearningRate(0.5, 9)))
    param, before = parameters.for_transform("w"), parameters["w"].mean()
    zero = Factors(np.zeros((3, 64), np.float32), np.zeros((3, 64), np.float32))
    update = chain.update(zero, chain.init(param), param)
    parameters.subtract("w", update, Key(0, 0))
    assert parameters["w"].mean() == pytest.approx(0.95 * before, abs=1e-3)


def test_a_decay_is_never_lost_on_the_way_to_an_array():
    with pytest.raises(ValueError, match="decay"):
        dense(Factors(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), decay=0.1))


def test_what_is_not_finite_in_a_factor_is_seen():
    product = factors((6, 5))
    assert all_finite(product)
    product.left[0, 0] = np.nan
    assert not all_finite(product)
    with pytest.raises(NonFinite, match="block 'w'"):
        Int8Parameters({"w": np.ones((6, 5), np.float32)}).subtract("w", product, Key(0, 0))


def looked_up(shape, ids, tokens=0, seed=0):
    values = np.random.default_rng(seed + 50).standard_normal((len(ids), shape[1]))
    rest = factors(shape, tokens, seed)
    return Lookups(np.array(ids), values.astype(np.float32), rest)


def by_hand(table):
    """Return the matrix that rows of a table are added to."""
    whole = table.rest.left.T @ table.rest.right
    whole[table.ids] += table.values
    return whole


@pytest.mark.parametrize("tokens", [0, 4], ids=["a table", "a tied table"])
def test_rows_of_a_table_are_read_as_the_matrix_that_they_make(tokens):
    table, shape = looked_up((30, 8), [2, 3, 17, 29], tokens), (30, 8)
    whole = by_hand(table)
    assert (table.shape, table.size, table.ndim) == (shape, 240, 2)
    assert table.numbers == 4 * 8 + tokens * 38
    for rows in (slice(0, 30), slice(3, 18), slice(4, 17), slice(1, 30, 2), np.array([29, 0, 3])):
        np.testing.assert_allclose(table[rows], whole[rows], atol=1e-6)
    np.testing.assert_allclose(dense(table), whole, atol=1e-6)
    other = np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32)
    np.testing.assert_allclose(table @ other, whole @ other, atol=1e-5)
    np.testing.assert_allclose(table.T[:], whole.T, atol=1e-6)  # what reads `left` still can
    assert table.norm() == pytest.approx(np.linalg.norm(whole), rel=1e-5)
    table.scale(0.5)
    np.testing.assert_allclose(dense(table), 0.5 * whole, atol=1e-6)
    assert all_finite(table)
    table.values[1, 1] = np.inf
    assert not all_finite(table)


def test_a_sum_with_tables_is_that_of_their_matrices():
    shape = (30, 8)
    several = [looked_up(shape, [2, 3, 29]), factors(shape, 3), looked_up(shape, [0, 3], 2, 1)]
    expected = by_hand(several[0]) + dense(several[1]) + by_hand(several[2])
    for order in (several, several[::-1], several[1:] + several[:1]):
        total = added(list(order))
        assert total.ids.tolist() == [0, 2, 3, 29]
        assert total.numbers == 4 * 8 + 5 * 38
        np.testing.assert_allclose(dense(total), expected, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["adam", "galore", "columns", "frugal", "apollo", "fira", "scale", "racs"]
)
def test_every_rule_takes_rows_of_a_table(name):
    start = np.ones((70, 24), np.float32)
    chain, results = Chain((RULES[name](), LearningRate(0.01, 9))), []
    for lazy in (False, True):
        parameters, state = Parameters({"w": start}), chain.init(start)
        for step in range(4):
            table = looked_up(start.shape, [step, 30, 60], 9, step)
            update = chain.update(table if lazy else by_hand(table), state, start)
            parameters.subtract("w", update, Key(0, step))
        results.append(parameters["w"] - start)
    error = np.linalg.norm(results[0] - results[1])
    assert error < 2e-4 * np.linalg.norm(results[0])


@pytest.mark.parametrize("rule", [Adam(), Adam8bit()], ids=["adam", "adam8bit"])
def test_adam_makes_no_left_factor_of_a_table(rule, monkeypatch):
    """2,048 tokens of a vocabulary of 128 thousand: it would take a gigabyte."""
    table = looked_up((128_000, 2), range(0, 128_000, 64))
    monkeypatch.setattr(Lookups, "left", property(lambda self: pytest.fail("a left factor")))
    parameters, sums, state = Parameters({"w": np.zeros(table.shape)}), Sums(), None
    state = rule.init(parameters["w"])
    for last in (False, True):
        update = sums.add("w", Share(table, 0.5, last), rule, state, parameters["w"])
    parameters.subtract("w", update, Key(0, 0))
    moved = np.flatnonzero(parameters["w"].any(axis=1))
    np.testing.assert_array_equal(moved, table.ids)


_PEAK = """
import sys
import numpy as np
from pathlib import Path
from edge_train.optim.adam8bit import Adam8bit
from edge_train.arrays.factored import Factors
from edge_train.optim.low_rank import LowRank
from edge_train.memory.measure import measure
from edge_train.arrays.parameters import Int4Parameters, Int8Parameters
from edge_train.optim.bases import TopVectors
from edge_train.rng import Key
from edge_train.formats.tensor_store import warm_up

shape, rank = (4096, 2048), 16
warm_up()
draw = np.random.default_rng(0)
rule = LowRank(Adam8bit(), TopVectors(rank, packed=True), 9)
kind = Int4Parameters if sys.argv[1] == "int4" else Int8Parameters
parameters = kind({"w": np.ones(shape, np.float32)})
factors = Factors(*(draw.standard_normal((32, side), np.float32) for side in shape))
param = parameters.for_transform("w")
state = rule.init(param)
Path("/proc/self/clear_refs").write_text("5")
before = measure().peak_bytes
gradient = factors[:] if sys.argv[1] == "dense" else factors
parameters.subtract("w", rule.update(gradient, state, param), Key(0, 0))
print(measure().peak_bytes - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset through /proc")
@pytest.mark.process
def test_neither_gradient_nor_update_nor_float_weights_of_a_matrix_exist():
    grown = {}
    for kind in ("lazy", "int4", "dense"):
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, kind], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        grown[kind] = int(done.stdout)
    matrix = 4 * 4096 * 2048
    assert grown["dense"] > 2 * matrix  # the gradient and its update
    assert max(grown["lazy"], grown["int4"]) < 0.5 * matrix

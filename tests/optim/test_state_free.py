"""SCALE and RACS equal their definitions, whole or of factors, and make no matrix of these."""

import tracemalloc

import numpy as np
import pytest
import reference

from edge_train.arrays.factored import Factors, Lookups, Streamed, Whole, dense
from edge_train.optim import racs
from edge_train.optim.adam8bit import SMALLEST
from edge_train.optim.normalized import Normalized
from edge_train.optim.racs import Racs
from edge_train.optim.transforms import Adam, for_block

SHAPES = [(70, 24), (24, 70), (40, 40)]
SIZES = {"few": 9, "many": 200}  # tokens: fewer than rows and columns, and more


def factors(shape, tokens=9, seed=0):
    draw = np.random.default_rng(seed)
    left, right = (draw.standard_normal((tokens, side)).astype(np.float32) for side in shape)
    return Factors(left, right)


def near(ours, expected, tolerance=1e-5):
    assert np.linalg.norm(ours - expected) < tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("tokens", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("by", "axis"), [("rows", 1), ("columns", 0)])
def test_scale_is_a_gradient_whose_lines_are_as_long_as_each_other(by, axis, shape, tokens):
    rule, gradient = Normalized(by), factors(shape, tokens)
    param = np.zeros(shape, np.float32)
    assert rule.init(param) == {}
    expected = reference.normalized(gradient[:].astype(np.float64), axis)
    near(rule.update(gradient[:], {}, param), expected)
    near(dense(rule.update(Whole(gradient[:]), {}, param)), expected)
    near(dense(rule.update(gradient, {}, param)), expected)


@pytest.mark.parametrize("tokens", [0, 6], ids=["a table", "with other uses"])
def test_scale_of_rows_that_were_looked_up_leaves_the_other_rows_alone(tokens):
    values = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    table = Lookups(np.array([2, 5, 19]), values, factors((30, 8), tokens))
    expected = reference.normalized(dense(table).astype(np.float64), 0)
    update = Normalized("columns").update(table, {}, np.zeros((30, 8), np.float32))
    assert isinstance(update, Lookups)
    near(dense(update), expected)


@pytest.mark.parametrize(("by", "axis"), [("rows", 1), ("columns", 0)])
@pytest.mark.parametrize("shape", [(70, 24), (130, 40)], ids=["float32", "8 bits"])
def test_momentum_comes_before_the_lines_are_made_as_long_as_each_other(shape, by, axis):
    rule, param = Normalized(by, momentum=0.9), np.zeros(shape, np.float32)
    state, mean = rule.init(param), 0.0
    lazy, in_8_bits = rule.init(param), param.size >= SMALLEST
    assert state["first"].dtype == (np.int8 if in_8_bits else np.float32)
    for step in range(12):
        gradient = factors(shape, seed=step)
        mean = 0.9 * mean + 0.1 * gradient[:].astype(np.float64)
        expected = reference.normalized(mean, axis)
        near(rule.update(gradient[:], state, param), expected, 0.1 if in_8_bits else 1e-5)
        update = rule.update(gradient, lazy, param)
        assert isinstance(update, Streamed)
        near(dense(update), expected, 0.1 if in_8_bits else 1e-5)


def test_the_mean_in_8_bits_is_right_on_average_and_drawn_by_block_and_seed():
    shape = (128, 64)
    gradient = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    param, found = np.zeros(shape, np.float32), []
    for seed in range(40):
        rule = Normalized(momentum=0.5, seed=seed)
        state = rule.init(param)
        for _ in range(8):
            update = rule.update(gradient.copy(), state, param)
        found.append(update)
    exact = reference.normalized(gradient.astype(np.float64), 1)
    apart = np.mean(found, axis=0) - exact
    assert np.linalg.norm(apart) < 0.3 * np.linalg.norm(found[0] - exact)  # 1 / sqrt(40), about
    one, other = (for_block(Normalized(momentum=0.5), name) for name in "ab")
    states = [rule.init(param) for rule in (one, other)]
    for rule, state in zip((one, other), states, strict=True):
        rule.update(gradient.copy(), state, param)
    assert (states[0]["first"] != states[1]["first"]).any()


def test_vectors_get_adam():
    param, gradient = np.zeros(5, np.float32), np.arange(5, dtype=np.float32)
    for rule in (Normalized(), Normalized("columns", momentum=0.9), Racs()):
        expected = Adam().update(gradient.copy(), Adam().init(param), param)
        np.testing.assert_array_equal(
            rule.update(gradient.copy(), rule.init(param), param), expected
        )


@pytest.mark.parametrize("most", [1 << 20, 0], ids=["squares", "inner products"])
@pytest.mark.parametrize("tokens", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_racs_is_its_fixed_point_of_matrices(shape, tokens, most, monkeypatch):
    monkeypatch.setattr(racs, "_NUMBERS", most)
    rule, param = Racs(), np.zeros(shape, np.float32)
    many = [factors(shape, tokens, seed) for seed in range(6)]
    many[3].scale(20)  # what grows is held back
    states = rule.init(param), rule.init(param)
    expected = reference.racs([g[:].astype(np.float64) for g in many], 5, 0.9, 1.01)
    for gradient, wanted in zip(many, expected, strict=True):
        near(rule.update(gradient[:], states[0], param), wanted, 1e-4)
        update = rule.update(gradient, states[1], param)
        assert isinstance(update, Streamed if most else Factors)
        near(dense(update), wanted, 1e-4)
    assert np.linalg.norm(expected[3]) == pytest.approx(1.01 * np.linalg.norm(expected[2]))


def test_racs_holds_nothing_down_after_a_gradient_of_zeros():
    rule, param = Racs(), np.zeros((6, 5), np.float32)
    state, gradient = rule.init(param), factors((6, 5))[:]
    for none in (np.zeros_like(gradient), Factors(np.zeros((2, 6)), np.zeros((2, 5)))):
        assert not dense(rule.update(none, state, param)).any()
    assert state["count"][0] == 0
    near(
        rule.update(gradient.copy(), state, param), Racs().update(gradient, rule.init(param), param)
    )


RULES = {
    "scale": Normalized(),
    "scale of columns": Normalized("columns"),
    "scale with momentum": Normalized(momentum=0.9),
    "racs": Racs(),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_no_matrix_is_made_of_factors(rule):
    shape = (3000, 1500)
    gradient, param = factors(shape, 16), np.broadcast_to(np.float32(0), shape)
    state = rule.init(param)
    tracemalloc.start()
    update = rule.update(gradient, state, param)
    for _, part in update.parts():
        del part
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.3 * 4 * 3000 * 1500


def test_bytes_of_what_keeps_no_moments():
    param = np.zeros((1024, 512), np.float32)
    bytes_of = {n: sum(v.nbytes for v in rule.init(param).values()) for n, rule in RULES.items()}
    assert bytes_of["scale"] == bytes_of["scale of columns"] == 0
    assert bytes_of["scale with momentum"] == param.size * (1 + 4 / 256) + 8
    assert bytes_of["racs"] == 8 * (1024 + 512) + 16

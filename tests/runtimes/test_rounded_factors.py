"""Rows of a gradient in bfloat16: right to what rounding twice allows, and only where asked for."""

import numpy as np
import pytest
import torch

from edge_train.arrays.factored import Factors, added, dense
from edge_train.runtimes.torch.rounded_factors import RoundedFactors
from edge_train.tasks.language_model import opening
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

# Each factor is rounded to 8 bits, half a unit of the last at most, and so is the sum; the sum in
# float32 adds what no test of 8 bits sees.
ROUNDED = 3 * 2.0**-9 * 1.01


def drawn(inner=300, rows=70, columns=33, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.standard_normal((inner, side)).astype(np.float32) for side in (rows, columns)]


def bound_of(left, right):
    """Return how far each number may be off: rounding is relative to what is multiplied."""
    return ROUNDED * (np.abs(left).T @ np.abs(right))


def test_rows_are_right_to_what_rounding_allows():
    left, right = drawn()
    found = dense(RoundedFactors(left, right))
    assert found.dtype == np.float32
    off = np.abs(found - left.T.astype(np.float64) @ right)
    assert (off <= bound_of(left, right)).all()
    assert off.max() > 0  # they are rounded


def test_numbers_of_few_bits_are_exact():
    left, right = map(np.sign, drawn(inner=5))  # sums of five ones have three bits
    assert (dense(RoundedFactors(left, right)) == left.T @ right).all()


def test_parts_and_rows_are_those_of_the_whole():
    left, right = drawn()
    gradient = RoundedFactors(left, right)
    whole, apart = dense(gradient), 2 * bound_of(left, right)  # both are rounded
    for rows, part in gradient.parts(8):
        assert (np.abs(part - whole[rows]) <= apart[rows]).all()
    some = np.array([0, 69, 3])
    assert (np.abs(gradient[some] - whole[some]) <= apart[some]).all()


def test_a_scaled_gradient_is_scaled_after_its_rows_were_read():
    gradient = RoundedFactors(*drawn())
    before = dense(gradient).copy()
    gradient.scale(0.5)  # a power of two is exact
    assert (dense(gradient) == before / 2).all()


def test_uses_of_one_weight_stay_rounded():
    pair = [RoundedFactors(*drawn(seed=seed)) for seed in (0, 1)]
    both = added(list(pair))
    assert isinstance(both, RoundedFactors)
    left, right = both.left, both.right
    off = np.abs(dense(both) - sum(one.left.T.astype(np.float64) @ one.right for one in pair))
    assert (off <= bound_of(left, right)).all()


def test_other_products_are_in_float32():
    left, right = drawn()
    vectors = np.random.default_rng(5).standard_normal((33, 4)).astype(np.float32)
    rounded, plain = RoundedFactors(left, right), Factors(left, right)
    assert (rounded @ vectors == plain @ vectors).all()
    assert rounded.norm() == pytest.approx(plain.norm(), rel=2.0**-7)


@pytest.mark.parametrize(
    ("dtype", "rules", "multiplies", "rounded"),
    [
        ("bfloat16", 8, True, True),
        ("bfloat16", 7, True, False),  # a run that began before goes on as it began
        ("bfloat16", 8, False, False),  # slower there than float32
        ("bfloat16", 8, None, False),
        ("float32", 8, True, False),
    ],
)
def test_only_new_runs_in_bfloat16_on_a_processor_that_has_it_are_rounded(
    monkeypatch, dtype, rules, multiplies, rounded
):
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    asked = {}

    def opened(model, **words):
        asked.update(words)
        return torch.nn.Identity()

    monkeypatch.setattr(TorchLanguageModel, "open", opened)
    monkeypatch.setattr(opening, "multiplies_bfloat16", lambda: multiplies)
    recipe = LanguageModelRecipe(dtype=dtype, rules=rules, threads=1)
    opening.open_engine(None, recipe, None)
    assert asked["rounded"] is rounded

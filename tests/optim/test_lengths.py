"""The length of a gradient is that of all its blocks, whatever form they come in."""

import numpy as np
import pytest

from edge_train.arrays.factored import Factors, Lookups
from edge_train.optim.lengths import Lengths, squares
from edge_train.optim.transforms import Adam
from edge_train.protocols import Share

random = np.random.default_rng(0)
LEFT, RIGHT = (random.standard_normal((3, n)).astype(np.float32) for n in (5, 4))
WHOLE = LEFT.T @ RIGHT
TABLE = Lookups.of(np.array([1, 3]), RIGHT[:2], 6)


def norm_of(*gradients, factors=True):
    lengths = Lengths(factors=factors)
    for gradient in gradients:
        lengths.add(gradient)
    return lengths.norm


def test_arrays_factors_and_rows_of_a_table_count_alike():
    # float32 products and sums of a few numbers: a few parts in ten million
    wanted = np.sqrt(2 * np.square(WHOLE, dtype=np.float64).sum() + squares(RIGHT[:2]))
    assert norm_of(WHOLE, Factors(LEFT, RIGHT), TABLE) == pytest.approx(wanted, rel=1e-5)


def test_a_batch_in_parts_has_the_length_of_its_sum():
    lengths, rule = Lengths(factors=True), Adam()
    rest = (rule, rule.init(WHOLE), WHOLE)
    lengths.add_part("a", Share(WHOLE.copy(), 0.25, last=False), *rest)
    lengths.add_part("a", Share(-WHOLE, 0.75, last=True), *rest)
    assert lengths.norm == pytest.approx(0.5 * np.linalg.norm(WHOLE), rel=1e-5)


def test_what_would_take_products_is_not_known_and_neither_is_what_no_float_holds():
    assert norm_of(WHOLE, Factors(LEFT, RIGHT), factors=False) is None
    assert norm_of(np.full((2, 2), 1e30, np.float32)) is None

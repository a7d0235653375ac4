"""The tables of bench token-prior say what was planted, and its items are always the same."""

import numpy as np
import pytest

from edge_train.bench.token_concepts import ROUND, Concepts, Items
from edge_train.bench.token_prior import _captures, _guessed, _table
from edge_train.bench.token_trials import Trial, paired
from edge_train.export.token_metric import metric_of

RANDOM = np.random.default_rng(0)


def rows_of(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_captures_tell_a_prior_from_chance():
    """Moves in two directions that the metric feels as much as all others: only a prior knows."""
    draws = RANDOM.standard_normal((4000, 8))
    moves = np.zeros((30, 8))
    moves[:, :2] = RANDOM.standard_normal((30, 2))
    concepts = Concepts(moves + 1, np.ones(8), np.repeat(np.arange(3), 10), moves, moves)
    table = rows_of(_captures(draws, concepts))
    random, metric, token, without = (float(c.split()[0]) for c in table[3][1:])  # rank 2
    assert table[3][0] == "2"
    assert token > 0.95
    assert without > 0.95
    assert max(random, metric) < 0.7  # 2 of 8 directions hold a quarter on average
    assert table[-1][1:] == ["1.000 +- 0.000"] * 4  # all directions hold all


def test_a_difference_is_of_pairs():
    assert paired([1.0, 2.0], [1.5, 2.5]) == (0.5, 0.0)
    mean, error = paired([0.0, 0.0], [1.0, 3.0])
    assert (mean, error) == (2.0, pytest.approx(1.0))


def test_runs_are_compared_with_the_isotropic_ones_of_the_same_item_and_seed():
    found = {}
    for seed, loss in ((0, 1.0), (1, 2.0)):
        found["bag", seed, "isotropic", 600] = Trial(loss, 0.5, 10)
        found["bag", seed, "prior", 600] = Trial(loss - 0.5, 0.6, 5)
    table = rows_of(_table(found))
    assert table[-1][0] == "prior"
    assert table[-1][-2:] == ["-0.5000 +- 0.0000", "+0.100 +- 0.000"]
    assert table[-2][-2:] == ["-", "-"]


def test_rounds_take_other_items_of_every_class(tmp_path):
    labels = np.arange(400) % 10
    own = Items(None, np.zeros((400, 28, 28), np.uint8), labels, tmp_path, "model")
    first, second = own.chosen(0), own.chosen(1)
    assert len(first) == 10 * ROUND
    assert not {*first} & {*second}
    assert np.bincount(labels[first]).tolist() == [ROUND] * 10
    assert own.chosen(0) == first


def test_a_guess_takes_away_what_photos_tell_and_nothing_that_they_do_not():
    features, classes = RANDOM.standard_normal((60, 5)), np.repeat(np.arange(3), 20)
    metric = metric_of(RANDOM.standard_normal((100, 4)))
    told = features @ RANDOM.standard_normal((5, 4))
    known, unknown = (
        _guessed(metric, Concepts(moves, np.zeros(4), classes, features, features), *[features] * 2)
        for moves in (told, RANDOM.standard_normal((60, 4)))
    )
    assert known.mean() > 0.9
    assert unknown.mean() < 0.2

"""Layers take turns by given odds, and outliers are counted as the paper defines them."""

from dataclasses import replace

import numpy as np
import pytest
from recipes import recipe_for

from edge_train.arrays.parameters import Int8Parameters, Parameters
from edge_train.methods import schedules
from edge_train.methods.block_schedules import layer_of
from edge_train.optim.layer_draws import LayerDraws
from edge_train.optim.outliers import layer_scores, outlier_share

ODDS = {"a.0": 0.5, "a.1": 0.3, "a.2": 0.2}
LOG_ODDS = {layer: float(np.log(share)) for layer, share in ODDS.items()}


def draws(count, seed=0, every=1, log_odds=LOG_ODDS):
    return LayerDraws(layer_of, log_odds, count, every, seed)


def test_blocks_of_no_layer_are_always_trained_and_as_many_layers_as_asked_for():
    schedule = draws(2)
    for step in range(20):
        assert schedule.trains(step, "lm_head.weight")
        assert sum(schedule.trains(step, f"{layer}.q.weight") for layer in ODDS) == 2


def test_all_blocks_of_a_layer_take_turns_together_for_as_long_as_a_draw_lasts():
    schedule = draws(1, every=5)
    found = [schedule.trains(step, "a.1.q.weight") for step in range(100)]
    assert found == [schedule.trains(step, "a.1.mlp.up.weight") for step in range(100)]
    assert found == [part for start in range(0, 100, 5) for part in [found[start]] * 5]
    assert 0 < sum(found) < 100


def test_layers_are_drawn_as_often_as_their_odds_say():
    """4,000 draws: a share is within five standard errors of what drawing in turn gives."""
    count = 4000
    first, second = draws(1), draws(2)
    for layer, share in ODDS.items():
        others = [(o, p) for o, p in ODDS.items() if o != layer]
        in_two = share + sum(p * share / (1 - p) for _, p in others)
        for schedule, wanted in ((first, share), (second, in_two)):
            found = np.mean([schedule.trains(step, f"{layer}.w") for step in range(count)])
            assert abs(found - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / count)


def test_another_seed_draws_other_layers_and_the_same_one_the_same():
    steps = range(50)
    found = [[draws(1, seed).trains(step, "a.0.w") for step in steps] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_layers_that_no_draw_takes_are_told_in_a_sentence():
    schedule = draws(1, every=5)
    seen = {layer for layer in ODDS if any(schedule.trains(s, f"{layer}.w") for s in range(10))}
    assert set(schedule.never_trained(10)) == set(ODDS) - seen
    assert len(schedule.never_trained(5)) == 2 and not schedule.never_trained(1000)
    lisa = schedules.get("lisa")
    recipe = recipe_for("classify", block_schedule="lisa", steps=5)
    said = lisa.warns(recipe, schedule)
    assert "2 layers get no turn in 5 steps" in said and "--resample-every" in said
    assert lisa.warns(replace(recipe, steps=1000), schedule) is None


@pytest.mark.parametrize("kind", [Parameters, Int8Parameters])
@pytest.mark.parametrize("transposed", [False, True])
def test_outliers_are_those_of_the_definition_on_the_whole_matrix(kind, transposed, monkeypatch):
    monkeypatch.setattr("edge_train.optim.outliers._NUMBERS_AT_ONCE", 100)  # some rows at a time
    draw = np.random.default_rng(0)
    matrix = draw.standard_normal((64, 48)).astype(np.float32)
    matrix[3, 5] *= 60
    weights = kind({"w": matrix})
    inputs = draw.standard_normal((200, 64 if transposed else 48))
    squares = (inputs**2).sum(axis=0)
    held = np.abs(weights["w"].astype(np.float64))
    products = held * (np.sqrt(squares)[:, None] if transposed else np.sqrt(squares))
    for times in (1.5, 3.0, 20.0):
        wanted = float(np.mean(products > times * products.mean()))
        assert wanted > 0
        assert outlier_share(weights, "w", squares, times, transposed) == pytest.approx(wanted)


def test_a_layer_scores_the_mean_of_its_matrices_and_a_head_nothing():
    quiet, loud = np.ones((8, 8), np.float32), np.ones((8, 8), np.float32)
    loud[0, 0] = 1000
    blocks = {"a.0.q.w": quiet, "a.0.k.w": loud, "a.1.q.w": quiet, "head.w": loud}
    inputs = {name: (np.ones(8), False) for name in blocks}
    scores = layer_scores(Parameters(blocks), inputs, layer_of, 10.0)
    assert scores == {"a.0": pytest.approx(1 / 128), "a.1": 0.0}

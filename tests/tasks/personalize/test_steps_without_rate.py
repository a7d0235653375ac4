"""Runs of a word that name no rate: what they are made of, and what those that do keep."""

from dataclasses import replace

import numpy as np
import pytest
from places import GOLDEN
from recipes import recipe_for

from edge_train.errors import InputError
from edge_train.estimators.gauss_newton import GaussNewton
from edge_train.estimators.zo import ZerothOrder
from edge_train.formats.artifact import open_artifact
from edge_train.memory.footprint import TRAIN
from edge_train.methods import methods
from edge_train.methods.method import Parts
from edge_train.optim.norm_limit import NormLimit
from edge_train.optim.pull import Pull
from edge_train.optim.signal import Signal
from edge_train.optim.tail_mean import TailMean
from edge_train.optim.transforms import Adam, LearningRate, Momentum
from edge_train.tasks.personalize.job import PersonalizeJob
from edge_train.tasks.personalize.radius import wanted_radius

ZO = recipe_for(model=str(GOLDEN), class_word="dog", method="zo")


def built(recipe):
    return PersonalizeJob(recipe).method(0.4, {"token": 1.0})


def test_steps_are_as_long_as_the_answers_say_and_end_at_their_mean():
    estimator, chain = built(ZO)
    assert isinstance(estimator, GaussNewton)
    assert chain.links[-1] == TailMean(((0, 250),))


def test_steps_of_chance_are_pulled_to_the_start_unless_the_run_began_before_they_were():
    links = built(ZO)[1].links
    assert [type(link) for link in links] == [Momentum, Pull, LearningRate, NormLimit, TailMean]
    before = built(replace(ZO, rules=3))[1].links
    assert before == (links[0], *links[2:])


def test_exact_steps_are_adams_without_a_rate_of_the_users_and_end_at_their_mean():
    chain = without_rate()
    assert [type(link) for link in chain.links] == [Signal, Adam, LearningRate, NormLimit, TailMean]
    assert without_rate(steps=80).links[-1] == TailMean(((0, 80),))


def without_rate(**keys):
    """Return the rule of exact steps of the small model's words."""
    recipe = recipe_for(until_noise="steps" not in keys, **{"steps": 300, **keys})
    return methods.get("backprop").build(replace(recipe, schedule="cosine"), Parts())[1]


@pytest.mark.parametrize("length", [1e-6, 1.0, 1e6])
def test_exact_steps_reach_a_point_whatever_the_loss_is_scaled_by(length):
    # the least of length * |x - goal|^2, with noise as large as the slope at the start
    random, goal = np.random.default_rng(0), np.full((1, 16), 0.02, np.float32)
    rule, point = without_rate(steps=200), np.full((1, 16), -0.01, np.float32)
    state = rule.init(point)
    began = float(np.abs(point - goal).max())
    for _ in range(200):
        noise = 0.03 * random.standard_normal(point.shape)
        gradient = (length * (point - goal + noise)).astype(np.float32)
        point = point - rule.update(gradient, state, point)
    assert float(np.sqrt(np.square(point - goal).mean())) < 0.3 * began


def test_noise_ends_no_run_that_cannot_see_it_or_whose_rate_has_a_length():
    assert not PersonalizeJob(ZO).recipe.until_noise
    with pytest.raises(InputError, match="until_noise reads exact gradients, and steps of zo"):
        PersonalizeJob(replace(ZO, until_noise=True))


@pytest.mark.parametrize("rate", [{"relative_rate": 0.5}, {"learning_rate": 0.01}])
def test_a_run_that_names_a_rate_goes_on_with_adam_and_its_radius(rate):
    # runs that began before have the rate of their time in their recipe
    estimator, chain = built(replace(ZO, **rate))
    assert isinstance(estimator, ZerothOrder)
    assert isinstance(chain.links[0], Adam)
    assert wanted_radius(PersonalizeJob(replace(ZO, **rate)).recipe, 0.0) == 0.1


def test_exact_steps_of_a_rate_are_adams_with_it_to_the_last():
    recipe = recipe_for(steps=100, relative_rate=0.2, schedule="cosine", until_noise=False)
    chain = methods.get("backprop").build(recipe, Parts())[1]
    assert chain.links == (Adam(), LearningRate(0.2, 100, 0.1, relative=True))


def test_a_run_that_is_made_longer_ends_at_a_mean_again():
    _, chain = built(replace(ZO, steps=400, spans=((0, 250), (250, 400))))
    assert chain.links[-1] == TailMean(((0, 250), (250, 400)))


def test_the_radius_leaves_room_for_slopes_that_shrink():
    assert wanted_radius(ZO, 0.0) == 0.4
    assert wanted_radius(ZO, 0.2) == 0.8
    safe = open_artifact(GOLDEN).manifest.safe_epsilon
    assert PersonalizeJob(ZO).wanted_radius() == max(0.4, 4 * safe)


@pytest.mark.parametrize(("sides", "points"), [(1, 5), (2, 8)])
def test_a_plan_says_what_the_answers_of_a_step_take(sides, points):
    artifact = open_artifact(GOLDEN)
    side = artifact.resolution // artifact.latent_scale
    answer = artifact.latent_channels * side * side
    lines = PersonalizeJob(replace(ZO, sides=sides)).footprint().known[TRAIN]
    [found] = [line.bytes for line in lines if line.name == "answers of a step"]
    assert found == answer * (4 * points + 24)


def test_a_plan_of_a_run_that_compares_losses_has_no_answers():
    lines = PersonalizeJob(replace(ZO, relative_rate=0.5)).footprint().known[TRAIN]
    assert "answers of a step" not in [line.name for line in lines]

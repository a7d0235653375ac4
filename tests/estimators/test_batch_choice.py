"""A small batch stands for a large one: facility location, factors, history, small sources."""

import numpy as np
import pytest

from edge_train.estimators.batch_choice import (
    Coreset,
    LargestLosses,
    RandomChoice,
    distances,
    some_of,
)
from edge_train.estimators.coreset import budgets, facility_location, is_small
from edge_train.estimators.sample_gradients import (
    ExactGradients,
    SlopeGradients,
    adam_features,
    largest,
    products,
    remember,
)
from edge_train.protocols import LastLayer, Scoring
from edge_train.rng import Key

OUTPUTS, INPUTS = 5, 7
# Sums of some products in float32, in another order than the reference's.
CLOSE = 1e-4


def layer_of(counts, seed=0):
    """Return random factors of samples that have so many rows each."""
    draw = np.random.default_rng(seed)
    rows = np.repeat(np.arange(len(counts)), counts)
    inputs, errors = (
        draw.standard_normal((len(rows), n)).astype(np.float32) for n in (INPUTS, OUTPUTS)
    )
    losses = draw.random(len(counts)).astype(np.float32)
    return LastLayer(losses, inputs, errors, rows.astype(np.int64))


def formed(layer):
    """Return the whole gradient of each sample, (samples, outputs, inputs): the definition."""
    found = np.zeros((len(layer.losses), OUTPUTS, INPUTS))
    for sample, error, entered in zip(layer.samples, layer.errors, layer.inputs, strict=True):
        found[sample] += np.outer(error.astype(np.float64), entered)
    return found


def directions(seed=3):
    def one(k):
        return Key(seed, k).generator("z").standard_normal((OUTPUTS, INPUTS), np.float32)

    return one


def test_inner_products_of_gradients_are_those_of_their_factors():
    layer = layer_of([3, 1, 4, 2])
    flat = formed(layer).reshape(4, -1)
    np.testing.assert_allclose(products(layer), flat @ flat.T, rtol=CLOSE, atol=CLOSE)


def test_only_the_numbers_that_are_asked_for_are_formed_and_are_those_of_the_whole():
    layer = layer_of([3, 1, 4, 2])
    flat = formed(layer).reshape(4, -1)
    exact, some, places = ExactGradients(layer), np.array([1, 3]), np.array([0, 9, 34])
    np.testing.assert_allclose(exact.mean(some).reshape(-1), flat[some].mean(0), rtol=CLOSE)
    np.testing.assert_allclose(exact.at(some, places), flat[np.ix_(some, places)], rtol=CLOSE)


@pytest.mark.parametrize("count", [1, 3])
def test_slopes_see_as_many_dimensions_as_they_have_directions(count):
    """The published single direction makes features of rank one; exact gradients do not."""
    layer, every, places = layer_of([2] * 8), np.arange(8), np.arange(OUTPUTS * INPUTS)
    seen = SlopeGradients(layer, count, directions())
    z = np.stack([directions()(k).reshape(-1) for k in range(count)])
    wanted = formed(layer).reshape(8, -1) @ z.T @ z / count
    np.testing.assert_allclose(seen.at(every, places), wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(seen.mean(every).reshape(-1), wanted.mean(0), rtol=1e-3, atol=1e-3)
    assert np.linalg.matrix_rank(seen.at(every, places), tol=1e-3) == count
    assert np.linalg.matrix_rank(ExactGradients(layer).at(every, places), tol=1e-3) == 8


def test_features_are_what_adam_would_make_of_each_gradient_after_its_history():
    draw = np.random.default_rng(1)
    history = draw.standard_normal((6, 4)).astype(np.float32)
    first, second = np.zeros(4, np.float32), np.zeros(4, np.float32)
    for gradient in history:
        remember(gradient, first, second)
    gradients = draw.standard_normal((3, 4)).astype(np.float32)
    found = adam_features(gradients, first, second, len(history))
    for own, feature in zip(gradients, found, strict=True):
        m = v = np.zeros(4)
        for gradient in (*history, own):
            m = 0.9 * m + 0.1 * gradient
            v = 0.999 * v + 0.001 * gradient.astype(np.float64) ** 2
        wanted = m / (1 - 0.9**7) / (np.sqrt(v / (1 - 0.999**7)) + 1e-8)
        np.testing.assert_allclose(feature, wanted, rtol=1e-3)


def test_without_a_history_features_are_signs():
    gradients = np.array([[0.5, -3.0], [-0.1, 2.0]], np.float32)
    none = np.zeros(2, np.float32)
    np.testing.assert_allclose(
        adam_features(gradients, none, none, 0), np.sign(gradients), rtol=1e-3
    )


def test_facility_location_is_the_greedy_one_of_its_definition():
    points = np.random.default_rng(2).standard_normal((12, 3)).astype(np.float32)
    gaps = distances(points)
    np.testing.assert_allclose(gaps, np.abs(points[:, None] - points).sum(2), rtol=1e-5)
    near = gaps.max() - gaps
    taken = []
    for _ in range(5):
        worth = {
            one: sum(max(near[i, j] for j in (*taken, one)) for i in range(12))
            for one in range(12)
            if one not in taken
        }
        taken.append(max(worth, key=lambda one: worth[one]))
    assert facility_location(gaps, 5).tolist() == taken
    assert sorted(facility_location(gaps, 99).tolist()) == list(range(12))
    assert facility_location(np.zeros((3, 3), np.float32), 2).tolist() == [0, 1]  # all alike


def test_budgets_add_up_and_no_source_gives_more_than_it_has():
    draw = np.random.default_rng(0)
    for _ in range(200):
        found = draw.integers(0, 9, 6)
        count = int(draw.integers(0, found.sum() + 1))
        shares = budgets(found, count)
        assert shares.sum() == count and (shares <= found).all() and (shares >= 0).all()


def test_small_sources_never_fill_the_batch_on_average():
    draw = np.random.default_rng(0)
    for _ in range(200):
        sizes = draw.integers(0, 1000, int(draw.integers(2, 9))) + 1
        small = is_small(sizes, 8, 32)
        assert 32 * sizes[small].sum() / sizes.sum() <= 8 and not small.all()
    assert not is_small(np.array([50]), 8, 32).any()
    assert is_small(np.array([1, 0, 99]), 8, 32).tolist() == [True, True, False]


class Task:
    """Candidates of three sources; weights of tokens as a language model has them."""

    def __init__(self, sources, sizes):
        self.sources, self.source_sizes = np.array(sources), np.array(sizes)

    def batch(self, key):
        count = len(self.sources)
        weight = key.generator("weight").random((count, 4), np.float32)
        return {"ids": np.arange(count), "weight": weight, "source": self.sources}

    def evaluation(self):
        return self.batch(Key(0, -2))

    def loss(self, runtime, batch, points):
        return layer_of([2] * len(self.sources)).losses[None]


class Model:
    parameters = last_layer_shape = (OUTPUTS, INPUTS)

    def last_layer(self, batch):
        return layer_of([2] * len(batch["ids"]))


def chosen(selection, sources, sizes):
    if isinstance(selection, Scoring):
        selection.begin(Model())
    return selection.choose(Task(sources, sizes), Model(), Key(0, 0))


@pytest.mark.parametrize("seen_along", [None, 1, 4])
def test_small_sources_are_kept_whole_and_others_share_the_rest(seen_along):
    sources = [0] * 10 + [1] * 5 + [2]
    batch = chosen(Coreset(4, 16, 20, seen_along), sources, [100, 50, 1])  # one example: kept
    kept = batch["ids"]
    assert len(set(kept.tolist())) == 4 and 15 in kept
    assert np.bincount(np.array(sources)[kept]).tolist() == [2, 1, 1]  # 3 * 10 / 15, 3 * 5 / 15
    assert "source" not in batch
    np.testing.assert_allclose(batch["weight"].sum(), 4, rtol=1e-5)


def test_more_samples_of_small_sources_than_the_batch_holds_are_chosen_among():
    sources = [2] * 6 + [0] * 10
    batch = chosen(Coreset(4, 16, 20), sources, [500, 500, 20])
    assert len(set(batch["ids"].tolist())) == 4 and (batch["ids"] < 6).all()


def test_what_was_trained_is_remembered_and_nothing_else():
    selection, sources = Coreset(4, 16, 20), [0] * 16
    state = selection.begin(Model())
    kept = selection.choose(Task(sources, [16]), Model(), Key(0, 0))["ids"]
    mean = formed(layer_of([2] * 16))[kept].mean(0)
    np.testing.assert_allclose(state["first"], 0.1 * mean, rtol=CLOSE, atol=1e-6)
    np.testing.assert_allclose(state["second"], 0.001 * mean**2, rtol=1e-3, atol=1e-8)
    assert state["steps"] == 1


def test_the_largest_losses_and_chance():
    losses = layer_of([2] * 16).losses
    kept = chosen(LargestLosses(4, 16), [0] * 16, [16])["ids"]
    assert set(kept.tolist()) == set(np.argsort(-losses)[:4].tolist())
    some = chosen(RandomChoice(4), [0] * 16, [16])["ids"]
    assert len(set(some.tolist())) == 4
    np.testing.assert_array_equal(some, chosen(RandomChoice(4), [0] * 16, [16])["ids"])


def test_a_batch_without_weights_is_only_cut():
    batch = some_of({"ids": np.arange(6), "source": np.zeros(6)}, np.array([1, 4]))
    assert {name: values.tolist() for name, values in batch.items()} == {"ids": [1, 4]}


def test_the_largest_places_are_those_of_the_mean():
    assert largest(np.array([[1.0, -5.0, 2.0]], np.float32), 2).tolist() == [1, 2]

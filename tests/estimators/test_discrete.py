"""Coordinate search finds what trying everything finds, as its definition says, bit for bit."""

from itertools import pairwise, product

import numpy as np
import pytest

from edge_train.arrays.parameters import Parameters
from edge_train.errors import NonFinite
from edge_train.estimators.discrete import CoordinateSearch, position_of
from edge_train.rng import Key

TOKENS, WORDS = 3, 7
_DRAW = np.random.default_rng(4)
ALONE = _DRAW.standard_normal((TOKENS, WORDS))
BESIDE = 0.05 * _DRAW.standard_normal((WORDS, WORDS))  # small: no step has to go uphill


def score(ids):
    """The loss of a prompt on any sample, but for the sample's own noise."""
    pairs = sum(BESIDE[a, b] for a, b in pairwise(ids))
    return sum(ALONE[place, one] for place, one in enumerate(ids)) + pairs


class Runtime:
    def __init__(self, start=(0, 0, 0), poison=None):
        self.parameters = Parameters({"prompt": np.array(start, np.float32)})
        self.poison, self.points = poison, 0

    def forward(self, batch, points):
        self.points += len(points)
        found = np.array([score([int(i) for i in p["prompt"]]) for p in points])
        losses = found[:, None] + batch["noise"][None, :]
        if self.poison is not None:
            losses[:, self.poison :] = np.nan
        return losses.astype(np.float32)


class Task:
    def batch(self, key):
        return {"noise": key.generator("batch").standard_normal(8)}

    def loss(self, runtime, batch, points):
        return runtime.forward(batch, points)


def every(key, ids, position, count):
    found = [one for one in range(WORDS) if one != ids[position]]
    return np.array(found[:count], np.int64)


def some(key, ids, position, count):
    found = key.generator("candidates").permutation(WORDS)
    return found[found != ids[position]][:count].astype(np.int64)


def steps(search, runtime, count, seed=0):
    """Take steps; return what each of them said."""
    task, said = Task(), []
    for step in range(count):
        key = Key(seed, step)

        def apply(name, change, key=key):
            runtime.parameters.subtract(name, change, key)

        said.append(search.estimate(runtime, task, task.batch(key), key, apply))
    return said


def ids_of(runtime):
    return [int(one) for one in runtime.parameters["prompt"]]


def by_the_definition(ids, key, candidates):
    """One step in plain loops: the NumPy twin of the estimator."""
    noise = Task().batch(key)["noise"]
    position = position_of(key, len(ids))
    tried = [list(ids)]
    for one in some(key, ids, position, candidates).tolist():
        tried.append([*ids[:position], one, *ids[position + 1 :]])
    losses = [[np.float32(score(prompt) + n) for n in noise] for prompt in tried]
    few = len(noise) // 4
    first = [float(np.mean([float(x) for x in row[:few]])) for row in losses]
    ranked = sorted(range(1, len(tried)), key=lambda n: first[n])
    kept = [0, *ranked[: -(-(len(tried) - 1) // 4)]]
    means = {n: float(np.mean([float(x) for x in losses[n]])) for n in kept}
    best = min(kept, key=lambda n: means[n])
    chosen = tried[best] if means[best] < means[0] else list(ids)
    return chosen, len(tried) * few + len(kept) * (len(noise) - few)


@pytest.mark.parametrize("candidates", [1, 3, 6])
def test_every_step_equals_its_definition_in_plain_loops(candidates):
    runtime = Runtime()
    ids, search = [0, 0, 0], CoordinateSearch(candidates, some)
    for step in range(12):
        key = Key(5, step)
        expected, passes = by_the_definition(ids, key, candidates)
        found = search.estimate(
            runtime,
            Task(),
            Task().batch(key),
            key,
            lambda name, change, key=key: runtime.parameters.subtract(name, change, key),
        )
        assert ids_of(runtime) == expected
        assert found.forwards == passes
        assert found.scalars == (position_of(key, 3), expected[position_of(key, 3)])
        ids = expected


def test_it_ends_at_the_prompt_that_trying_all_of_them_finds():
    best = min(product(range(WORDS), repeat=TOKENS), key=score)
    runtime = Runtime()
    steps(CoordinateSearch(WORDS, every), runtime, 4 * TOKENS)
    assert tuple(ids_of(runtime)) == best


def test_scalars_rebuild_every_prompt_without_the_model():
    runtime, again = Runtime(), Runtime()
    search = CoordinateSearch(3, some)
    for step, said in enumerate(steps(search, runtime, 9)):
        key = Key(0, step)
        search.replay(
            said.scalars,
            again.parameters,
            key,
            lambda name, change, key=key: again.parameters.subtract(name, change, key),
        )
    assert ids_of(again) == ids_of(runtime)
    assert again.points == 0


def test_the_largest_ids_are_kept_exactly():
    most = (1 << 24) - 1
    runtime = Runtime(start=(most, most, most))
    search = CoordinateSearch(1, every)
    search.replay(
        (1.0, 1.0),
        runtime.parameters,
        Key(0, 0),
        lambda name, change: runtime.parameters.subtract(name, change, Key(0, 0)),
    )
    assert ids_of(runtime) == [most, 1, most]


@pytest.mark.parametrize("poison", [0, 4])
def test_a_loss_that_is_not_finite_changes_nothing(poison):
    runtime, applied = Runtime(poison=poison), []
    with pytest.raises(NonFinite):
        CoordinateSearch(3, some).estimate(
            runtime,
            Task(),
            Task().batch(Key(0, 0)),
            Key(0, 0),
            lambda *given: applied.append(given),
        )
    assert not applied


def test_nothing_to_try_leaves_the_prompt_as_it_is():
    runtime = Runtime()
    said = steps(CoordinateSearch(3, lambda *given: np.array([], np.int64)), runtime, 1)
    assert ids_of(runtime) == [0, 0, 0]
    assert said[0].forwards == 8  # it is known on the whole batch

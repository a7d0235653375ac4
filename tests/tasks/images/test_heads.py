"""Heads: their gradients are exact, Tversky's is the published formula, XOR takes one unit."""

import math

import numpy as np
import pytest

from edge_train.arrays.parameters import Parameters
from edge_train.losses import cross_entropy
from edge_train.optim.transforms import Adam
from edge_train.rng import Key
from edge_train.tasks.images.engine import HeadEngine, start_of
from edge_train.tasks.images.heads import HEADS, Shape, heads, stages_of
from edge_train.tasks.images.tversky import Tversky

CASES = [(head.name, "ignorematch") for head in HEADS] + [("tversky", "subtractmatch")]

STEP = 1e-3  # of float32: smaller ones are lost in rounding


def engine(name, difference="ignorematch", width=7, classes=4, size=5, seed=1):
    shape = Shape(width=width, classes=classes, size=size, difference=difference)
    stages = stages_of(heads.get(name), shape)
    values = start_of(stages, seed)
    draw = np.random.default_rng(seed)
    values = {
        n: v + 0.1 * draw.standard_normal(v.shape).astype(np.float32) for n, v in values.items()
    }
    return HeadEngine(stages, Parameters(values))


def batch(width=7, classes=4, count=9):
    draw = np.random.default_rng(2)
    return {
        "inputs": draw.standard_normal((count, width)).astype(np.float32),
        "labels": draw.integers(0, classes, count),
    }


@pytest.mark.parametrize(("name", "difference"), CASES)
def test_the_gradient_of_every_parameter_is_the_slope_of_the_loss(name, difference):
    head, some = engine(name, difference), batch()
    gradients = {}
    losses = head.backward(some, gradients.__setitem__)
    assert set(gradients) == set(head.parameters)
    np.testing.assert_allclose(losses, head.forward(some, [head.parameters])[0], rtol=1e-6)
    for block, gradient in gradients.items():
        direction = np.random.default_rng(4).standard_normal(gradient.shape)

        def mean(sign, block=block, direction=direction):
            point = dict(head.parameters)
            point[block] = (point[block] + sign * STEP * direction).astype(np.float32)
            return head.forward(some, [point])[0].astype(np.float64).mean()

        slope = (mean(1) - mean(-1)) / (2 * STEP)
        # the hard indicators jump at some places, where no slope is exact
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("difference", ["ignorematch", "subtractmatch"])
def test_tversky_similarity_is_the_published_formula(difference):
    stage = Tversky("t", 6, 3, 5, difference)
    read = stage.start(Key(3, 0))
    inputs = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    found, _ = stage.forward(read, inputs)
    theta, alpha, beta = read["weights"].tolist()
    for n, x in enumerate(inputs.astype(np.float64)):
        for c, p in enumerate(read["prototypes"].astype(np.float64)):
            common = more = less = 0.0
            for f in read["bank"].astype(np.float64):
                a, b = x @ f / math.sqrt(6), p @ f / math.sqrt(6)
                if a > 0 and b > 0:
                    common += a * b
                    if difference == "subtractmatch":
                        more, less = more + max(a - b, 0), less + max(b - a, 0)
                elif difference == "ignorematch":
                    more, less = more + max(a, 0) * (b <= 0), less + max(b, 0) * (a <= 0)
            wanted = (theta * common - alpha * more - beta * less) / math.sqrt(5)
            assert found[n, c] == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("difference", ["ignorematch", "subtractmatch"])
def test_one_tversky_unit_learns_xor_which_no_linear_one_can(difference):
    inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    wanted = np.array([0, 1, 1, 0], np.float32)
    learned = 0
    for seed in range(10):
        stage = Tversky("xor", 2, 1, 16, difference)
        read = stage.start(Key(seed, 0))
        rule = Adam()
        state = {name: rule.init(block) for name, block in read.items()}
        for _ in range(400):
            outputs, tape = stage.forward(read, inputs)
            error = 1 / (1 + np.exp(-outputs)) - wanted[:, None]
            gradients, _ = stage.backward(tape, error / 4, False)
            for name, gradient in gradients.items():
                read[name] -= 0.05 * rule.update(gradient, state[name], read[name])
        outputs, _ = stage.forward(read, inputs)
        learned += ((outputs[:, 0] > 0) == (wanted > 0)).all()
    assert learned >= 3  # of some starts it does not: hard indicators have no slope to follow


@pytest.mark.parametrize(("name", "difference"), CASES)
def test_nothing_overflows_at_the_width_of_large_backbones(name, difference):
    head = engine(name, difference, width=4096, classes=10, size=256)
    some = batch(4096, 10)
    some["inputs"] *= 10
    outputs = head.outputs(some["inputs"], head.parameters)
    assert np.isfinite(cross_entropy(outputs, some["labels"])[0]).all()
    assert np.abs(outputs).max() < 2000  # half precision holds it, 32 times over


def test_a_two_layer_head_has_as_many_parameters_as_a_tversky_head():
    counts = {}
    for name in ("tversky", "two-layer"):
        head = heads.get(name)
        shape = Shape(width=1280, classes=10, size=head.size(1280, 10))
        values = start_of(stages_of(head, shape), 0)
        counts[name] = sum(block.size for block in values.values())
    assert counts["two-layer"] == pytest.approx(counts["tversky"], rel=0.02)


def test_parts_of_a_call_are_the_whole_of_it():
    head, some = engine("tversky"), batch()
    whole = head.outputs(some["inputs"], head.parameters)
    head.batch_limit = 2
    # products of other sizes round in another order
    np.testing.assert_allclose(head.outputs(some["inputs"], head.parameters), whole, atol=1e-6)

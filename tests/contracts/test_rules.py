"""Every rule takes batches in parts, weight decay and weights in few bits, in any combination."""

import numpy as np
import pytest
from linear_loss import SHAPES, Linear, loop_by, loop_of
from recipes import recipe_for

from edge_train.arrays.parameters import Int4Parameters, Int8Parameters, Parameters
from edge_train.estimators.backprop import Backprop
from edge_train.methods import methods, rules
from edge_train.methods.exact import links
from edge_train.methods.method import Parts
from edge_train.optim.transforms import Chain, Momentum

STEPS = 6
SAMPLES = 24  # their factors hold more numbers than a matrix of 16 x 40: sums become matrices
KINDS = {"float32": Parameters, "int8": Int8Parameters, "int4": Int4Parameters}
LOW = {"rank": 4, "refresh_every": 5, "scale": 1.0}
HEAD = "scale-sgd with a head"  # no rule of the registry: what its output layers get
NAMES = ["momentum", HEAD, *(name for name in rules.all() if name != "lora")]

rule = pytest.mark.parametrize("name", NAMES)
kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
decay = pytest.mark.parametrize("decay", [0.0, 0.1], ids=["plain", "decay"])


def trained(name, kind, decay, samples, steps=STEPS):
    """Return the loop after some steps, the first of them of a whole batch: all get one basis."""
    keys = {"learning_rate": 0.01, "weight_decay": decay}
    if "rank" in getattr(rules.all().get(name), "reads", ()):
        keys |= LOW
    if name == "momentum":  # no rule of the registry; small networks have it
        recipe = recipe_for("language-model", steps=9, schedule="constant", **keys)
        loop = loop_by(Chain((Momentum(), *links(recipe))), kind, SAMPLES)
    elif name == HEAD:
        recipe = recipe_for("language-model", steps=9, schedule="constant", **keys)
        parts = Parts(is_head=lambda block: block == "tall")
        loop = loop_by(methods.get("scale-sgd").build(recipe, parts)[1], kind, SAMPLES)
        assert "0.first" in loop.state["tall"]
    else:
        loop = loop_of(name, kind, SAMPLES, **keys)
    loop.step(0)
    loop.estimator = Backprop(samples)
    for step in range(1, steps):
        loop.step(step)
    assert not loop.sums.held
    return loop


def test_every_rule_of_ours_is_here():
    assert {"adamw", "adamw8bit", "galore", "q-galore", "apollo", "frugal"} < set(NAMES)
    assert {"scale-sgd", "racs", "sumo", "fira"} < set(NAMES)


@rule
@kind
@decay
@pytest.mark.parametrize("samples", [None, 9], ids=["whole", "parts"])
def test_every_rule_stays_finite_and_moves_every_block(name, kind, decay, samples):
    start = Linear(kind).parameters
    loop = trained(name, kind, decay, samples)
    for block in SHAPES:
        now = loop.runtime.parameters[block]
        assert np.isfinite(now).all()
        moved = np.linalg.norm(now - start[block]) / np.linalg.norm(start[block])
        assert 1e-3 < moved < 1


@rule
@kind
def test_decay_shrinks_matrices_by_its_share_whatever_they_are_stored_in(name, kind):
    """What steps with and without decay differ by is -rate * decay of the weights, on average."""
    plain, decayed = (trained(name, kind, decay, 9, steps=2) for decay in (0.0, 10.0))
    start = Linear(Parameters).parameters
    for block in ("wide", "tall", "embed_tokens"):
        apart = decayed.runtime.parameters[block] - plain.runtime.parameters[block]
        weights = start[block].astype(np.float64)
        share = float((apart * weights).sum() / np.square(weights).sum())
        assert share == pytest.approx(0.9**2 - 1, abs=0.06)  # rounding moves an INT4 weight by 0.1


@rule
@decay
@pytest.mark.parametrize("samples", [1, 9, SAMPLES])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(name, decay, samples):
    whole, parts = (trained(name, Parameters, decay, size, 2) for size in (None, samples))
    assert parts.runtime.seen[1:] == {1: [1] * 24, 9: [9, 9, 6], SAMPLES: [24]}[samples]
    for block in SHAPES:
        one, other = whole.runtime.parameters[block], parts.runtime.parameters[block]
        assert np.abs(one - other).max() < 1e-5, block
        for part, value in whole.state[block].items():
            if value.dtype == np.float32:
                np.testing.assert_allclose(parts.state[block][part], value, atol=1e-5)


@rule
@decay
@pytest.mark.parametrize("kind", [Int8Parameters, Int4Parameters], ids=["int8", "int4"])
def test_a_step_in_parts_rounds_few_bits_as_the_whole_batch_does(name, decay, kind):
    """But for sums that lie within their own rounding of a half."""
    whole, parts = (trained(name, kind, decay, size, 2) for size in (None, 9))
    for block in ("wide", "tall", "embed_tokens"):
        one, other = (loop.runtime.parameters[block] for loop in (whole, parts))
        scale = whole.runtime.parameters.stored()[f"{block}:scale"].astype(np.float32).max()
        assert (np.abs(one - other) > 0.5 * scale).mean() < 0.01

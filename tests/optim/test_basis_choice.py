"""A matrix gets the cheapest basis that keeps about as much of its gradient as the best one."""

import numpy as np
import pytest
from recipes import rule_of

from edge_train.arrays.factored import Factors
from edge_train.optim.bases import TopVectors, captured
from edge_train.optim.basis_choice import NAMES, ByCapture, choices, summary

RANK, WIDTH, LONG = 6, 48, 90


def factors_for(basis, seed=0):
    """Return the factors of a gradient that this basis keeps and cheaper ones do not."""
    draw = np.random.default_rng(seed)
    errors = draw.standard_normal((32, LONG)).astype(np.float32)
    if basis == "columns":  # inputs with a few outlier channels
        inputs = draw.standard_normal((32, WIDTH)) * np.where(np.arange(WIDTH) % 10 == 0, 30, 1)
    elif basis == "dct":  # slow waves along the inputs
        places = np.pi * (np.arange(WIDTH) + 0.5) / WIDTH
        waves = np.cos(np.arange(RANK)[:, None] * places)
        inputs = draw.standard_normal((32, RANK)) @ waves + 0.01 * draw.standard_normal((32, WIDTH))
    else:  # few directions, none of them along an axis or a wave
        inputs = draw.standard_normal((32, RANK)) @ draw.standard_normal((RANK, WIDTH))
    return Factors(errors, inputs.astype(np.float32))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("best", NAMES)
def test_the_basis_that_keeps_the_gradient_is_chosen(best, packed):
    basis, gradient = ByCapture(TopVectors(RANK, packed=packed)), factors_for(best)
    state = basis.init(WIDTH)
    basis.refresh(gradient, state, 0)
    assert NAMES[int(state["chosen"][0])] == best
    kept = dict(zip(NAMES, state["captured"], strict=True))
    assert kept[best] > 0.95 * kept["svd"] > 0.8
    assert captured(gradient, basis, state) == pytest.approx(kept[best], abs=1e-4)
    assert all(kept[cheaper] < 0.95 * kept["svd"] for cheaper in NAMES[: NAMES.index(best)])


def test_what_is_kept_of_factors_is_what_is_kept_of_their_product():
    gradient = factors_for("svd")
    for basis in (TopVectors(3), TopVectors(3, packed=True)):
        state = basis.init(WIDTH)
        basis.refresh(gradient, state, 0)
        whole = gradient.left.T.astype(np.float64) @ gradient.right
        left = whole - basis.lift(basis.project(gradient, state), state, WIDTH)
        expected = 1 - np.square(left).sum() / np.square(whole).sum()
        assert captured(gradient, basis, state) == pytest.approx(expected, abs=1e-4)


def test_the_choice_stays_and_unused_vectors_are_never_written():
    basis = ByCapture(TopVectors(RANK))
    state = basis.init(WIDTH)
    before = {name: value.nbytes for name, value in state.items()}
    basis.refresh(factors_for("columns"), state, 0)
    basis.refresh(factors_for("svd"), state, 1)
    assert NAMES[int(state["chosen"][0])] == "columns"
    assert not state["vectors"].any()
    assert {name: value.nbytes for name, value in state.items()} == before


@pytest.mark.parametrize("method", ["galore", "q-galore"])
def test_every_layer_chooses_its_own_and_the_journal_can_say_so(method):
    rule = rule_of(method, rank=RANK, refresh_every=5, scale=1.0, seed=0, basis="auto").matrices
    param = np.zeros((LONG, WIDTH), np.float32)
    states = {best: rule.init(param) for best in NAMES}
    assert choices(states) == {}  # nothing was measured yet
    for best, state in states.items():
        for seed in range(7):
            rule.update(factors_for(best, seed), state, param)
    found = choices({**states, "bias": {"0.inner.first": np.zeros(3, np.float32)}})
    assert {name: row["basis"] for name, row in found.items()} == {name: name for name in NAMES}
    assert all(f"1 {name} (" in summary(found) for name in NAMES)


def test_columns_and_cosines_can_be_asked_for_and_store_indices_only():
    param = np.zeros((LONG, WIDTH), np.float32)
    for name in ("columns", "dct"):
        state = rule_of(
            "galore", rank=RANK, refresh_every=5, scale=1.0, seed=0, basis=name
        ).matrices.init(param)
        assert state["0.basis.indices"].nbytes == 4 * RANK
        assert "0.basis.vectors" not in state

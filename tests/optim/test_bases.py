"""Bases: what they capture, what they store, and what a refresh says of them."""

import numpy as np
import pytest
import reference

from edge_train.optim.bases import (
    Columns,
    RandomVectors,
    TopVectors,
    as_tall,
    captured,
    cosine_transform,
    cosines,
    restore_shape,
)


def decaying(long=300, short=128, ratio=0.9, seed=0):
    """Return a matrix whose singular values fall by about `ratio`."""
    draw = np.random.default_rng(seed)
    left, right = draw.standard_normal((long, short)), draw.standard_normal((short, short))
    return ((left * ratio ** np.arange(short)) @ right).astype(np.float32)


def refreshed(basis, standing, epoch=0):
    state = basis.init(standing.shape[1])
    basis.refresh(standing, state, epoch)
    return state


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (4, 3, 2), (2, 3, 4), (1, 7)])
def test_standing_up_and_laying_back_is_the_identity(shape):
    block = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    standing = as_tall(block)
    assert standing.shape[0] >= standing.shape[1]
    np.testing.assert_array_equal(restore_shape(standing, shape), block)


@pytest.mark.parametrize("rank", [1, 8, 32])
def test_top_vectors_capture_what_the_svd_does(rank):
    standing = decaying()
    singular = np.linalg.svd(standing.astype(np.float64), compute_uv=False)
    best = np.square(singular[:rank]).sum() / np.square(singular).sum()
    basis = TopVectors(rank)
    state = refreshed(basis, standing)
    assert captured(standing, basis, state) > 0.995 * best
    vectors = state["vectors"]
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(rank), atol=2e-6)


def test_top_vectors_of_a_low_rank_matrix_capture_it_whole():
    draw = np.random.default_rng(0)
    standing = (draw.standard_normal((90, 4)) @ draw.standard_normal((4, 40))).astype(np.float32)
    basis = TopVectors(4)
    assert captured(standing, basis, refreshed(basis, standing)) > 1 - 1e-6


def test_packed_vectors_capture_nearly_as_much():
    standing = decaying()
    exact, packed = TopVectors(16), TopVectors(16, packed=True)
    lost = captured(standing, exact, refreshed(exact, standing)) - captured(
        standing, packed, refreshed(packed, standing)
    )
    assert 0 < lost < 0.02


@pytest.mark.parametrize("width", [1, 2, 7, 8, 33, 256])
def test_the_cosine_basis_is_orthonormal_and_its_fast_transform_is_the_definition(width):
    basis = reference.cosine_basis(width)
    np.testing.assert_allclose(basis @ basis.T, np.eye(width), atol=1e-12)
    np.testing.assert_allclose(cosines(np.arange(width, dtype=np.int32), width), basis, atol=1e-6)
    rows = np.random.default_rng(0).standard_normal((5, width)).astype(np.float32)
    np.testing.assert_allclose(cosine_transform(rows), rows @ basis.T, atol=2e-5)


@pytest.mark.parametrize("of", ["gradient", "dct"])
def test_columns_by_energy_are_the_best_of_their_basis(of):
    standing = decaying(50, 12)
    vectors = reference.cosine_basis(12) if of == "dct" else np.eye(12)
    energy = np.square(standing.astype(np.float64) @ vectors.T).sum(axis=0)
    basis = Columns(5, of=of)
    state = refreshed(basis, standing)
    assert set(state["indices"]) == set(np.argsort(energy)[-5:])
    kept = np.sort(energy)[-5:].sum() / energy.sum()
    assert captured(standing, basis, state) == pytest.approx(kept, rel=1e-5)


def test_smooth_gradients_are_for_the_cosines_and_outlier_columns_for_columns():
    draw = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(draw.standard_normal((200, 64)), axis=1), axis=1)
    outliers = draw.standard_normal((200, 64)) * np.where(np.arange(64) % 9 == 0, 20, 1)
    for standing, better, worse in ((smooth, "dct", "gradient"), (outliers, "gradient", "dct")):
        shares = [
            captured(matrix, Columns(8, of=of), refreshed(Columns(8, of=of), matrix))
            for matrix in (standing.astype(np.float32),)
            for of in (better, worse)
        ]
        assert shares[0] > 0.9 > shares[1] + 0.2


def test_a_refresh_says_how_new_vectors_lie_to_the_old_ones():
    first, second = decaying(seed=1), decaying(seed=2)
    for basis in (TopVectors(8), Columns(8), Columns(8, of="dct"), Columns(8, by="chance")):
        state = basis.init(128)
        basis.refresh(first, state, 0)
        before = basis.lift(np.eye(8, dtype=np.float32), state, 128)
        rotation = basis.refresh(second, state, 1)
        after = basis.lift(np.eye(8, dtype=np.float32), state, 128)
        np.testing.assert_allclose(rotation, after @ before.T, atol=1e-5)
        again = basis.refresh(second, state, 1)
        np.testing.assert_allclose(np.square(again).sum() / 8, 1, atol=1e-4)


def test_random_vectors_keep_lengths_on_average_and_take_eight_bytes():
    standing = decaying()
    basis = RandomVectors(16)
    state = refreshed(basis, standing)
    assert sum(value.nbytes for value in state.values()) == 8
    ratios = []
    for epoch in range(40):
        basis.refresh(standing, state, epoch)
        low = basis.project(standing, state)
        ratios.append(np.square(low).sum() / np.square(standing).sum())
    assert np.mean(ratios) == pytest.approx(1, abs=0.15)  # 4 standard errors


def test_columns_take_four_bytes_each():
    state = Columns(16, of="dct").init(1024)
    assert sum(value.nbytes for value in state.values()) == 4 * 16

"""Packed vectors: their size, their error, and the groups that others destroy."""

import numpy as np
import pytest

from edge_train.arrays import packed as int4


def read_back(rows):
    packed = int4.empty(*rows.shape)
    int4.pack(rows, packed)
    return int4.unpack(packed, rows.shape[1])


def orthonormal(count, width):
    draw = np.random.default_rng(0).standard_normal((width, count))
    return np.linalg.qr(draw)[0].T.astype(np.float32)


@pytest.mark.parametrize("width", [96, 128, 384, 500, 4096])
def test_a_value_takes_at_most_four_and_a_half_bits_with_everything_counted(width):
    packed = int4.empty(8, width)
    assert 8 * sum(value.nbytes for value in packed.values()) <= 4.5 * 8 * width


@pytest.mark.parametrize("width", [1, 2, 5, 127, 128, 129, 384])
def test_codes_come_back_where_they_were(width):
    """Values that are their own codes: a shuffled pair or a swapped nibble would show."""
    codes = np.random.default_rng(width).integers(16, size=(3, width)).astype(np.float32)
    for start in range(0, width, int4.GROUP):
        group = codes[:, start : start + int4.GROUP]
        group[:, 0], group[:, -1] = 0, 15
    np.testing.assert_array_equal(read_back(codes), codes)


@pytest.mark.parametrize("value", [0.0, 0.06, -0.06, 1e-5])
def test_constant_groups_are_exact(value):
    rows = np.full((2, 300), value, np.float32)
    np.testing.assert_allclose(read_back(rows), rows, rtol=1e-3, atol=6e-8)  # float16


@pytest.mark.parametrize("sign", [1, -1])
def test_groups_of_one_sign_keep_all_levels(sign):
    two = sign * np.tile(np.array([1.0, 2.0], np.float32), (1, 64))
    np.testing.assert_allclose(read_back(two), two, rtol=1e-3)
    draw = np.random.default_rng(0)
    rows = (sign * draw.uniform(1, 1.15, (4, 128))).astype(np.float32)
    assert np.abs(read_back(rows) - rows).max() <= 0.15 / 30 + 2e-3  # half a step, and float16


def test_vectors_keep_their_length_and_most_of_their_direction():
    rows = orthonormal(32, 512)
    back = read_back(rows)
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, rtol=1e-3)
    assert np.linalg.norm(back - rows) / np.linalg.norm(rows) < 0.11
    assert np.linalg.norm(back @ back.T - np.eye(32), 2) < 0.12


def test_packing_packed_vectors_changes_little():
    once = read_back(orthonormal(8, 256))
    assert np.abs(read_back(once) - once).max() < 2e-3

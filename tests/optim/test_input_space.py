"""What inputs span: the streamed bases are those of one decomposition, as GPM writes it."""

import numpy as np
import pytest

from edge_train.optim.input_space import InputSketch, orthonormal, quantized, strongest


def inputs_of(rank, count=80, width=20, seed=0, noise=0.0):
    random = np.random.default_rng(seed)
    sizes = np.geomspace(1, 0.05, rank)
    values = (random.standard_normal((count, rank)) * sizes) @ random.standard_normal((rank, width))
    return (values + noise * random.standard_normal((count, width))).astype(np.float32)


def gpm(rows, known, share):
    """Return the directions that GPM adds: its update of the memory, equation by equation."""
    inputs = rows.astype(np.float64).T  # R, a column a sample
    total = (inputs**2).sum()
    rest = inputs - known @ (known.T @ inputs)
    left, values, _ = np.linalg.svd(rest, full_matrices=False)
    held, new = total - (rest**2).sum(), 0
    while held < share * total and new < len(values):
        held, new = held + values[new] ** 2, new + 1
    return left[:, :new]


def projector(directions):
    return directions.astype(np.float64) @ directions.astype(np.float64).T


@pytest.mark.parametrize("part", [1, 7, 80], ids=["one by one", "some", "all at once"])
def test_two_tasks_have_the_bases_of_the_papers_formula(part):
    known = np.zeros((20, 0), np.float32)
    for task, share in enumerate((0.95, 0.98)):
        rows = inputs_of(9, seed=task, noise=0.02)
        sketch = InputSketch(known, 20)
        for start in range(0, len(rows), part):
            sketch.add(rows[start : start + part])
        new, owned, held = sketch.chosen(share)
        expected = gpm(rows, known.astype(np.float64), share)
        assert new.shape == expected.shape and new.shape[1] > 0
        # single precision, and gaps between singular values of a tenth
        np.testing.assert_allclose(projector(new), projector(expected), atol=1e-4)
        np.testing.assert_allclose(new.T @ known, 0, atol=1e-5)
        assert share <= held <= 1 + 1e-6 and owned.shape == (known.shape[1],)
        known = np.concatenate((known, new), axis=1)


def test_a_stream_that_outgrows_its_buffer_loses_nothing_where_all_directions_fit():
    rows = inputs_of(20, count=30_000, noise=0.1)
    sketch = InputSketch(np.zeros((20, 0), np.float32), 20)
    sketch.add(rows)
    new, _, _ = sketch.chosen(0.9)
    expected = gpm(rows, np.zeros((20, 0)), 0.9)
    np.testing.assert_allclose(projector(new), projector(expected), atol=1e-4)


def test_no_more_directions_are_added_than_may_be():
    sketch = InputSketch(np.zeros((20, 0), np.float32), 3)
    sketch.add(inputs_of(9, count=30_000))
    new, _, held = sketch.chosen(0.999)
    assert new.shape == (20, 3) and held < 0.999
    full = InputSketch(new, 0)
    full.add(inputs_of(9))
    assert full.chosen(0.999)[0].shape == (20, 0)


def test_inputs_that_are_known_add_nothing_and_need_the_strongest_of_what_is_known():
    known = np.eye(6, dtype=np.float32)[:, :4]
    sketch = InputSketch(known, 6)
    sketch.add(np.array([[3, 0, 1, 0, 0, 0]] * 5, np.float32))
    new, owned, held = sketch.chosen(0.95)
    assert new.shape == (6, 0) and held == pytest.approx(1)
    assert owned.tolist() == [True, False, True, False]  # 90 % of the energy, and 10 %


def test_inputs_of_zeros_span_nothing():
    sketch = InputSketch(np.zeros((5, 0), np.float32), 5)
    sketch.add(np.zeros((9, 5), np.float32))
    assert sketch.chosen(0.97)[0].shape == (5, 0)


def test_few_and_many_rows_have_the_same_directions():
    rows = inputs_of(4, count=40)
    many = strongest(np.tile(rows, (3, 1)), 4)
    few = strongest(rows[:10], 4)
    for energies, directions in (many, few):
        np.testing.assert_allclose(directions.T @ directions, np.eye(4), atol=1e-5)
        assert (np.diff(energies) <= 0).all()
    np.testing.assert_allclose(projector(many[1]), projector(few[1]), atol=1e-4)


def test_directions_in_int8_span_nearly_the_same_and_later_ones_change_no_earlier_one():
    _, directions = strongest(inputs_of(12, width=100, count=300), 12)
    codes, scale = quantized(directions)
    assert codes.dtype == np.int8 and np.abs(codes).max() == 127
    found = orthonormal(codes, scale)
    np.testing.assert_allclose(found.T @ found, np.eye(12), atol=1e-6)
    assert np.linalg.norm(directions - found @ (found.T @ directions), axis=0).max() < 0.02
    np.testing.assert_allclose(orthonormal(codes[:, :5], scale[:5]), found[:, :5], atol=1e-6)
    assert orthonormal(codes[:, :0], scale[:0]).shape == (100, 0)

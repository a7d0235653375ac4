"""Projections of labels are pure functions of a key; views and their transposes match."""

import numpy as np
import pytest

from edge_train.estimators.layerwise.targets import (
    DRAWS,
    VIEWS,
    Projections,
    repeated,
    rows_of,
    spread,
)

SHAPES = {"pooled": (4, 3, 2, 5), "channel": (4, 3, 2, 5), "full": (4, 3, 2, 5)}
SHAPES |= {"every": (4, 3, 5), "last": (4, 3, 5)}


FREE, UP, TANH, SIGMOID = (-np.inf, np.inf), (0.0, np.inf), (-1.0, 1.0), (0.0, 1.0)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("bounds", [FREE, UP, TANH])
def test_targets_have_the_scale_asked_for(draw, bounds):
    matrix = Projections(draw, 0.5, seed=1).targets("0", 10, 4000, bounds)
    assert (matrix.shape, matrix.dtype) == ((10, 4000), np.float32)
    assert np.sqrt(np.mean(matrix**2)) == pytest.approx(0.5, rel=0.06)  # ends are cut
    assert matrix.min() >= 0 if bounds == UP else matrix.min() < -0.4


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("scale", [0.5, 0.9, 3.0])
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("bounds", [UP, TANH, SIGMOID, (0.5, 1.0)])
def test_every_target_is_within_reach_and_classes_differ(draw, bounds, scale, hold):
    """A sigmoid was told to become 1.27, and an unsaturated tanh 1.56."""
    low, high = bounds
    targets = Projections(draw, scale, seed=1, hold=hold).targets("0", 10, 400, bounds)
    assert low <= targets.min() and targets.max() <= high
    if np.isfinite(high):
        assert low < targets.min() and targets.max() < high
    assert len(np.unique(targets, axis=0)) == 10


@pytest.mark.parametrize("draw", DRAWS)
def test_blocks_and_seeds_have_projections_of_their_own_and_keep_them(draw):
    one = Projections(draw, 1, seed=1).matrix("0", 3, 8)
    np.testing.assert_array_equal(one, Projections(draw, 1, seed=1).matrix("0", 3, 8))
    assert not np.array_equal(one, Projections(draw, 1, seed=1).matrix("1", 3, 8))
    assert not np.array_equal(one, Projections(draw, 1, seed=2).matrix("0", 3, 8))


@pytest.mark.parametrize("classes", [3, 12])
def test_orthogonal_codes_are_orthogonal_as_far_as_units_allow(classes):
    matrix = Projections("orthogonal", 1, seed=1).matrix("0", classes, 8)
    gram = matrix @ matrix.T if classes <= 8 else matrix.T @ matrix
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4)


@pytest.mark.parametrize("draw", DRAWS)
def test_a_held_projection_is_the_drawn_one_in_int8(draw):
    held = Projections(draw, 0.7, seed=1, hold=True)
    exact = Projections(draw, 0.7, seed=1).matrix("0", 5, 40)
    for _ in range(2):
        error = np.abs(held.matrix("0", 5, 40) - exact).max()
        assert error <= np.abs(exact).max() / 127 / 2 * 1.001
    if draw == "rademacher":
        assert error < 1e-6


def test_every_view_is_tested():
    assert SHAPES.keys() == set(VIEWS)


@pytest.mark.parametrize(("view", "shape"), SHAPES.items())
def test_an_error_is_spread_by_the_transpose_of_the_view(view, shape):
    """<rows_of(y), e> = <y, spread(e)> for all y and e."""
    random = np.random.default_rng(0)
    outputs = random.standard_normal(shape).astype(np.float32)
    rows = rows_of(outputs, view)
    error = random.standard_normal(rows.shape).astype(np.float32)
    back = spread(error, shape, view)
    assert back.shape == shape
    assert np.sum(rows * error) == pytest.approx(np.sum(outputs * back), rel=1e-4, abs=1e-5)


def test_every_row_of_a_sample_has_its_label():
    labels = np.array([7, 8])
    outputs = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    rows = rows_of(outputs, "every")
    assert repeated(labels, len(rows)).tolist() == [7, 7, 7, 8, 8, 8]
    assert rows[3:].min() == outputs[1].min()

"""Projections of late interaction: each kind is its formula, and its gradient is exact."""

import numpy as np
import pytest

from edge_train.arrays.projections import (
    ACTIVATIONS,
    KINDS,
    folded,
    gradient,
    operations,
    project,
    shapes_of,
    start_values,
    unfolded,
)

WIDTH, OUTPUTS = 6, 4
ACT = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
}
WAYS = [(kind, activation) for kind in KINDS for activation in ACTIVATIONS]


def reference(kind, activation, w, x):
    """The paper's formulas (arXiv:2510.12327), as they are written."""
    act = ACT[activation]
    return {
        "linear": lambda: x @ w["out"].T,
        "ffn": lambda: act(x @ w["up"].T) @ w["out"].T,
        "glu": lambda: ((x @ w["up"].T) * act(x @ w["gate"].T)) @ w["out"].T,
        "residual": lambda: (x + act(x @ w["up"].T)) @ w["out"].T,
        "upscaled": lambda: (x @ w["skip"].T + act(x @ w["up"].T)) @ w["out"].T,
    }[kind]()


def drawn(kind):
    draw = np.random.default_rng(3)
    shapes = shapes_of(kind, WIDTH, OUTPUTS)
    return {n: draw.standard_normal(s) for n, s in shapes.items()}, draw.standard_normal((5, WIDTH))


@pytest.mark.parametrize(("kind", "activation"), WAYS)
def test_a_folded_projection_is_the_formula(kind, activation):
    values, x = drawn(kind)
    found = project(folded(kind, activation, values), x)
    # float64 sums in another order
    np.testing.assert_allclose(found, reference(kind, activation, values, x), rtol=1e-10)


@pytest.mark.parametrize(("kind", "activation"), WAYS)
def test_gradients_are_those_of_finite_differences(kind, activation):
    values, x = drawn(kind)
    error = np.random.default_rng(4).standard_normal((5, OUTPUTS))
    head = folded(kind, activation, values)
    found = unfolded(kind, activation, values, gradient(head, x, error))
    assert set(found) == set(values)
    step = 1e-6
    for name, block in values.items():
        for at in np.ndindex(block.shape):
            two = []
            for sign in (1, -1):
                moved = {**values, name: block.copy()}
                moved[name][at] += sign * step
                two.append((reference(kind, activation, moved, x) * error).sum())
            # central differences in float64 are good to a few parts in 1e8 of sums of size 10
            assert found[name][at] == pytest.approx((two[0] - two[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "glu"])
def test_a_purely_linear_stack_is_one_matrix(kind):
    values, _ = drawn(kind)
    head = folded(kind, "identity", values)
    assert head.up is None
    assert head.direct.shape == (OUTPUTS, WIDTH)
    assert operations(kind, "identity", WIDTH, OUTPUTS) == 2 * OUTPUTS * WIDTH


@pytest.mark.parametrize("kind", ["linear", "residual", "upscaled"])
def test_a_kind_with_a_linear_path_begins_as_the_projection_on_principal_directions(kind):
    directions = np.linalg.qr(np.random.default_rng(1).standard_normal((WIDTH, WIDTH)))[0]
    directions = directions[:OUTPUTS].astype(np.float32)
    x = np.random.default_rng(2).standard_normal((5, WIDTH)).astype(np.float32)
    found = project(folded(kind, "silu", start_values(kind, directions, 0)), x)
    np.testing.assert_allclose(found, x @ directions.T, atol=1e-5)  # float32


@pytest.mark.parametrize("kind", KINDS)
def test_start_values_have_the_shapes_and_every_block_gets_a_gradient(kind):
    directions = np.eye(OUTPUTS, WIDTH, dtype=np.float32)
    values = start_values(kind, directions, 0)
    assert {n: v.shape for n, v in values.items()} == shapes_of(kind, WIDTH, OUTPUTS)
    assert all(v.dtype == np.float32 for v in values.values())
    x = np.random.default_rng(2).standard_normal((9, WIDTH)).astype(np.float32)
    head = folded(kind, "silu", values)
    found = gradient(head, x, np.ones((9, OUTPUTS), np.float32))
    assert all(np.any(g) for g in unfolded(kind, "silu", values, found).values())

"""Packed weights come back as the numbers they were, within half a step."""

import numpy as np
import pytest

pytest.importorskip("onnx_ir")

from edge_train.export.quantized_graphs import (
    LARGEST_FACTOR,
    activation_step,
    pack_int4,
    quantize_int8,
)


@pytest.mark.parametrize("largest", [127, LARGEST_FACTOR])
@pytest.mark.parametrize(("shape", "axis"), [((3, 5), 0), ((5, 3), 1), ((4, 2, 3, 3), 0)])
def test_int8_is_within_half_a_step(shape, axis, largest) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    integers, scale = quantize_int8(weight, axis, largest)
    steps = np.expand_dims(scale, [i for i in range(len(shape)) if i != axis])
    assert np.abs(integers.astype(int)).max() == largest
    assert (np.abs(integers * steps - weight) <= steps * 0.5001).all()


def test_int8_keeps_rows_of_zeros() -> None:
    integers, scale = quantize_int8(np.zeros((2, 3), np.float32), 0)
    assert not integers.any()
    assert (scale == 1).all()


@pytest.mark.parametrize(("rows", "columns", "group"), [(2, 64, 32), (3, 50, 32), (1, 1, 16)])
def test_int4_is_within_one_step(rows, columns, group) -> None:
    weight = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    packed, scale = pack_int4(weight, group)
    groups = -(-columns // group)
    assert packed.shape == (rows, groups, group // 2)
    levels = np.stack([packed & 15, packed >> 4], -1).reshape(rows, groups, group).astype(int) - 8
    steps = scale.reshape(rows, groups, 1)
    back = (levels * steps).reshape(rows, -1)[:, :columns]
    allowed = np.repeat(np.abs(steps), group, 2).reshape(rows, -1)[:, :columns]
    # Half a step inside the range; a whole one where +8 would be needed and +7 is the largest.
    assert (np.abs(back - weight) <= allowed * 1.0001).all()


@pytest.mark.parametrize("extent", [(-1.0, 3.0), (0.0, 0.0), (2.0, 5.0), (-4.0, -1.0)])
def test_an_activation_range_holds_zero_exactly(extent) -> None:
    step, zero = activation_step(extent)
    assert step > 0
    assert 0 <= zero <= 255
    low, high = -zero * step, (255 - zero) * step
    assert low <= min(extent[0], 0) + step
    assert high >= max(extent[1], 0) - step

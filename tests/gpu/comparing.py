"""What is close: numbers of a card and of the host, by the reason that they may differ for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# Products in float32 on both (torch leaves TF32 off), added up in other orders over some hundred
# numbers, a dozen one after the other; relative to the largest number of a block.
SAME = 1e-3
# A dozen roundings to 8 bits of mantissa one after the other.
ROUNDED = 0.1
_NOTHING = 1e-4  # of the largest number of all: what is smaller is rounding noise on both


def assert_close(found: Mapping[str, Any], expected: Mapping[str, Any], most: float) -> float:
    """Compare blocks; return the largest difference, relative to the largest of its block.

    Raises:
      AssertionError: a block is missing, or further away.
    """
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    floor = _NOTHING * max(float(np.abs(one).max()) for one in expected.values())
    worst = 0.0
    for name, value in expected.items():
        assert np.isfinite(found[name]).all(), f"{name} is not finite"
        size = max(float(np.abs(value).max()), floor)
        off = float(np.abs(np.asarray(found[name], np.float64) - value).max()) / size
        assert off <= most, f"{name} is off by {off:.2g} of its largest number, {most} is allowed"
        worst = max(worst, off)
    return worst


def assert_equal(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compare blocks bit for bit.

    Raises:
      AssertionError: one differs.
    """
    for name, value in expected.items():
        assert np.array_equal(found[name], value), f"{name}: the same call gave other bits"

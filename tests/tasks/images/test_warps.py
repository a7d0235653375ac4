"""Views of a patch: the way back is the transpose of the way there, and a view is what it says."""

import numpy as np
import pytest

from edge_train.rng import Key
from edge_train.tasks.images.audit.warps import AREA, drawn, seen, size_of

SIDE = 24


def photo():
    return Key(0, 0).generator("photo").integers(40, 120, (SIDE, SIDE, 3)).astype(np.uint8)


@pytest.mark.parametrize("number", range(4))
def test_the_way_back_is_the_transpose(number):
    draw = Key(1, number).generator("views")
    warp = drawn(draw, 1, 4)[0, number]
    place = np.array([3.3, 8.1], np.float32)
    grid = 5
    patch = draw.uniform(20, 100, (grid, grid, 3)).astype(np.float32)
    change = draw.standard_normal((grid, grid, 3)).astype(np.float32)
    one = seen(photo(), patch, place, size_of(SIDE), warp)
    moved = seen(photo(), patch + change, place, size_of(SIDE), warp)
    error = draw.standard_normal((SIDE, SIDE, 3)).astype(np.float32)
    there = float(((moved.pixels - one.pixels) * error).sum())
    back = float((one.back(error).reshape(patch.shape) * change).sum())
    assert there == pytest.approx(back, rel=1e-3, abs=1e-2)
    assert abs(there) > 0.1


def test_a_patch_covers_a_tenth_of_the_plain_view_and_nothing_else():
    warp = drawn(Key(0, 0).generator("views"), 1, 1)[0, 0]
    place = np.array([4, 6], np.float32)
    view = seen(photo(), np.full((1, 1, 3), 255, np.float32), place, size_of(SIDE), warp)
    assert len(view.covered) / SIDE**2 == pytest.approx(AREA, rel=0.2)
    rest = np.ones(SIDE * SIDE, bool)
    rest[view.covered] = False
    same = view.pixels.reshape(-1, 3)[rest] == photo().reshape(-1, 3)[rest]
    assert same.all()
    assert (view.pixels.reshape(-1, 3)[view.covered] == 255).all()


def test_numbers_that_were_cut_at_white_have_no_slope():
    warp = np.array([1, 0, 0, 0, 1.2], np.float32)
    view = seen(photo(), np.full((2, 2, 3), 250, np.float32), np.zeros(2), size_of(SIDE), warp)
    assert not view.back(np.ones((SIDE, SIDE, 3), np.float32)).any()

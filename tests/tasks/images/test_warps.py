"""Views of a patch: the way back is the transpose of the way there, and a view is what it says."""

import numpy as np
import pytest

from edge_train.rng import Key
from edge_train.tasks.images.audit.patches import PATCH, PatchEngine, PatchTask, Photos
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


class Squares:
    """A backbone with known slopes: weighted sums of squared pixels."""

    def __init__(self):
        draw = Key(3, 0).generator("weights").standard_normal((2, SIDE * SIDE * 3), np.float32)
        self.weights = draw / 10

    def __call__(self, pixels):
        return np.square(pixels.reshape(len(pixels), -1) / 255) @ self.weights.T

    def differentiable(self, pixels):
        def back(error):
            values = 2 * pixels.reshape(len(pixels), -1) / 255**2
            return (values * (error @ self.weights)).reshape(pixels.shape)

        return self(pixels), back


class Plain:
    """A head whose logits are its features."""

    def __call__(self, features):
        return features

    def back(self, features, error):
        return error


@pytest.mark.parametrize("views", [1, 3])
def test_slopes_of_all_views_are_summed_as_differences_say(views):
    photos = Photos(np.stack([photo(), photo()[::-1]]), np.array([0, 1]))
    start = Key(4, 0).generator("start").standard_normal((4, 4, 3)).astype(np.float32)
    engine = PatchEngine(Squares(), Plain(), photos, start.copy())
    task = PatchTask(photos, 2, views, 0)
    batch, found = task.batch(Key(0, 5)), {}
    engine.backward(batch, lambda name, gradient: found.update({name: gradient}))
    change = found[PATCH] / np.linalg.norm(found[PATCH])
    radius = np.float32(1e-2)
    points = [{PATCH: start + radius * change}, {PATCH: start - radius * change}]
    ahead, behind = task.loss(engine, batch, points).astype(np.float64).mean(axis=1)
    slope = (ahead - behind) / (2 * float(radius))
    assert slope > 0.01
    assert float(np.linalg.norm(found[PATCH])) == pytest.approx(slope, rel=2e-2)

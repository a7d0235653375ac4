"""Known warps of a picture with a patch on it: what a view shows, and the way back to the patch.

A view is linear in the patch but for the cut at black and white, so that a gradient at a view's
pixels goes back to the patch by the transpose of what made the view: `Seen.back`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

SMALLEST, LARGEST = 0.85, 1.15  # of a view's scale
MOST_ANGLE = np.pi / 12
MOST_SHIFT = 0.08  # of the picture's side
MOST_LIGHT = 0.2  # brighter or darker by this share
AREA = 0.1  # share of a picture that a patch covers
NUMBERS = 5  # of a warp: scale, angle, shift down, shift right, light
_WHITE = np.float32(255)


def size_of(side: int) -> float:
    """Return the side of the square that a patch covers, in pixels."""
    return float(side * AREA**0.5)


def drawn(draw: np.random.Generator, samples: int, views: int) -> Array:
    """Return warps (samples, views, 5); the first view of each sample is the picture as it is."""
    found = np.empty((samples, views, NUMBERS), np.float32)
    found[..., 0] = draw.uniform(SMALLEST, LARGEST, (samples, views))
    found[..., 1] = draw.uniform(-MOST_ANGLE, MOST_ANGLE, (samples, views))
    found[..., 2:4] = draw.uniform(-MOST_SHIFT, MOST_SHIFT, (samples, views, 2))
    found[..., 4] = draw.uniform(1 - MOST_LIGHT, 1 + MOST_LIGHT, (samples, views))
    found[:, 0] = (1, 0, 0, 0, 1)
    return found


@dataclass(frozen=True)
class Reading:
    """Points of a grid read between its numbers: out = sum over four of weight * number.

    Attributes:
      places: (points, 4) rows of the grid.
      weights: (points, 4) of each; they sum to 1.
      rows: of the grid.
    """

    places: NDArray[np.int64]
    weights: Array
    rows: int

    def __call__(self, grid: Array) -> Array:
        """Return the points, (points, channels), of a grid (rows, channels)."""
        found: Array = np.einsum("pk,pkc->pc", self.weights, grid[self.places])
        return found

    def back(self, error: Array) -> Array:
        """Return the transpose's result, (rows, channels), of numbers at the points."""
        places = self.places.ravel()
        columns = [
            np.bincount(places, (self.weights * one[:, None]).ravel(), self.rows) for one in error.T
        ]
        return np.stack(columns, axis=1).astype(np.float32)


def reading(down: Array, right: Array, side: int) -> Reading:
    """Return how points are read in a grid of side x side numbers; outside of it, its edge.

    Args:
      down, right: (points,) in units of the grid, the middle of the first number at 0.
    """
    down, right = np.clip(down, 0, side - 1), np.clip(right, 0, side - 1)
    top, left = (np.minimum(v, max(side - 2, 0)).astype(np.int64) for v in (down, right))
    low, far = down - top, right - left
    below, beside = np.minimum(top + 1, side - 1), np.minimum(left + 1, side - 1)
    places = [top * side + left, top * side + beside, below * side + left, below * side + beside]
    weights = [(1 - low) * (1 - far), (1 - low) * far, low * (1 - far), low * far]
    return Reading(np.stack(places, 1), np.stack(weights, 1).astype(np.float32), side * side)


@dataclass(frozen=True)
class Seen:
    """A view.

    Attributes:
      pixels: (side, side, 3) float32, from 0 to 255.
      covered: its pixels that show the patch, in rows.
      way: how these read the patch.
      light: of the view; 0 for numbers that were cut at black or white.
    """

    pixels: Array
    covered: NDArray[np.int64]
    way: Reading
    light: Array

    def back(self, error: Array) -> Array:
        """Return the gradient at the patch (rows, 3) of one at the view's pixels."""
        return self.way.back(error.reshape(-1, 3)[self.covered] * self.light)


def seen(photo: NDArray[np.uint8], patch: Array, place: Array, size: float, warp: Array) -> Seen:
    """Return a view of a picture with a patch on it.

    Args:
      photo: (side, side, 3).
      patch: (grid, grid, 3) pixels from 0 to 255, spread over the square it covers.
      place: (2,) the square's upper left corner, in pixels of the photo.
      size: the square's side, in pixels; 0: no patch.
      warp: (5,) as `drawn` has it.
    """
    side = len(photo)
    scale, angle, shift_down, shift_right, light = (float(one) for one in warp)
    down, right = _sources(side, scale, angle, shift_down * side, shift_right * side)
    if (scale, angle, shift_down, shift_right) == (1, 0, 0, 0):
        pixels = photo.reshape(-1, 3).astype(np.float32)
    else:
        pixels = reading(down, right, side)(photo.reshape(-1, 3).astype(np.float32))
    own_down, own_right = down - float(place[0]) + 0.5, right - float(place[1]) + 0.5
    inside = (own_down >= 0) & (own_down < size) & (own_right >= 0) & (own_right < size)
    covered = np.flatnonzero(inside)
    grid = len(patch)
    per = grid / size if size else 1.0
    way = reading(own_down[covered] * per - 0.5, own_right[covered] * per - 0.5, grid)
    if len(covered):
        pixels[covered] = way(patch.reshape(-1, 3))
    pixels *= np.float32(light)
    kept = np.where(pixels[covered] < _WHITE, np.float32(light), np.float32(0))
    return Seen(np.minimum(pixels, _WHITE).reshape(side, side, 3), covered, way, kept)


def _sources(
    side: int, scale: float, angle: float, down: float, right: float
) -> tuple[Array, Array]:
    """Return where in the picture each pixel of a view lies, in rows: (side * side,) twice."""
    middle = (side - 1) / 2
    rows, columns = (v.ravel() - middle for v in np.indices((side, side), np.float32))
    rows, columns = rows - np.float32(down), columns - np.float32(right)
    cosine, sine = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    return (
        cosine * rows - sine * columns + np.float32(middle),
        sine * rows + cosine * columns + np.float32(middle),
    )

"""Views of a picture: the whole of it, then crops, mirrored and brighter or darker, by the seed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_train.formats.pictures import Fit, Pixels, read_picture
from edge_train.rng import Key
from edge_train.tasks.images.audit.warps import drawn, seen, size_of

_SMALLEST_CROP = 0.6  # share of the area that a view keeps at least
_BRIGHTNESS = 0.2  # views are brighter or darker by at most this share
_PATCH_GRIDS = (1, 2, 4, 8, 16)
_LARGER = 1.25  # a picture is read this much larger than a view, so that crops stay sharp


def views(file: Path, digest: str, count: int, side: int, seed: int) -> Iterator[Pixels]:
    """Yield a picture as a backbone reads it, then views that follow from the seed and its bytes.

    A view is a crop of at least 60 % of the area, mirrored half of the time, and up to 20 %
    brighter or darker.

    Args:
      digest: the hash of its file.
      count: of all that is yielded, (side, side, 3) each.

    Raises:
      InputError: it cannot be read.
    """
    yield whole(file, side)
    if count == 1:
        return
    pixels = whole(file, round(_LARGER * side))
    for number in range(1, count):
        yield _view(pixels, side, Key(seed, 0).generator("view", digest, number))


def patched(file: Path, digest: str, count: int, side: int, seed: int) -> Iterator[Pixels]:
    """Yield views of a picture with a patch of random colours on a tenth of it.

    Colours, place and warp follow from the seed and the picture's bytes; a patch is of 1 to 16
    colours along a side, so that some are flat and some are noise.

    Raises:
      InputError: it cannot be read.
    """
    photo = whole(file, side)
    size = size_of(side)
    for number in range(count):
        draw = Key(seed, 0).generator("patched view", digest, number)
        grid = int(draw.choice(_PATCH_GRIDS))
        patch = draw.uniform(0, 255, (grid, grid, 3)).astype(np.float32)
        place = draw.uniform(0, side - size, 2).astype(np.float32)
        warp = drawn(draw, 1, 2)[0, 1]
        yield seen(photo, patch, place, size, warp).pixels.astype(np.uint8)


def whole(file: Path, side: int) -> Pixels:
    """Return the middle of a picture, (side, side, 3).

    Raises:
      InputError: it cannot be read.
    """
    return read_picture(file, Fit((side, side), crop=True, smooth=True)).pixels


def _view(pixels: Pixels, side: int, draw: np.random.Generator) -> Pixels:
    large = len(pixels)
    least = max(round(large * _SMALLEST_CROP**0.5), 1)
    crop = int(draw.integers(least, large, endpoint=True))
    top, left = draw.integers(0, large - crop, 2, endpoint=True)
    places = np.minimum((np.arange(side) + 0.5) * crop / side, crop - 1).astype(np.int64)
    found = pixels[(top + places)[:, None], (left + places)[None]]
    if draw.random() < 0.5:
        found = found[:, ::-1]
    light = 1 + _BRIGHTNESS * (2 * draw.random() - 1)
    lit: Pixels = np.clip(found * np.float32(light), 0, 255).astype(np.uint8)
    return lit

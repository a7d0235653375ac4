"""Sizes of equal area that photos of other shapes are trained at, and which one a photo gets.

Source: aspect-ratio bucketing as kohya's trainer has it: both sides in steps of 64 pixels, no area
above that of the square. We differ in the sides, from half to twice that of the square, and in
enlarging small photos as squares are.
"""

import math
from collections.abc import Sequence

_STEP = 64  # pixels; what the deepest level of a Stable Diffusion can halve
_SIDES_OF_STEPS = 4  # a square of fewer steps has no neighbors; then the model's own unit is taken


def bucket_sizes(side: int, unit: int) -> tuple[tuple[int, int], ...]:
    """Return the sizes (width, height), the square first; none has more pixels than it.

    Args:
      side: of the square, in pixels.
      unit: that sides of a picture of this model are multiples of.

    >>> bucket_sizes(512, 64)[:4]
    ((512, 512), (256, 1024), (320, 768), (384, 640))
    >>> bucket_sizes(32, 8)
    ((32, 32), (16, 64), (24, 40), (40, 24), (64, 16))
    """
    step = math.lcm(_STEP, unit) if side >= _SIDES_OF_STEPS * _STEP else unit
    tall = []
    for width in range(-(-side // 2 // step) * step, side, step):
        height = min(side * side // width, 2 * side) // step * step
        if height > width:
            tall.append((width, height))
    return (side, side), *tall, *((height, width) for width, height in reversed(tall))


def nearest(size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the size whose shape is nearest; of two equally near ones that with more pixels.

    Args:
      size: (width, height) of a photo, upright.

    >>> nearest((4000, 3000), bucket_sizes(512, 64))
    (576, 448)
    """
    wanted = math.log(size[0] / size[1])

    def distance(other: tuple[int, int]) -> tuple[float, int]:
        return abs(math.log(other[0] / other[1]) - wanted), -other[0] * other[1]

    return min(sizes, key=distance)


def size_condition(
    photo: tuple[int, int], trained: tuple[int, int]
) -> tuple[float, float, float, float, float, float]:
    """Return what SDXL is told of a photo: its size, where it was cut, the size it is trained at.

    Heights go before widths, the top before the left; the cut is in pixels of the resized photo.

    Args:
      photo, trained: (width, height).

    >>> size_condition((2048, 1024), (1024, 512))
    (1024.0, 2048.0, 0.0, 0.0, 512.0, 1024.0)
    >>> size_condition((600, 400), (512, 512))
    (400.0, 600.0, 0.0, 128.0, 512.0, 512.0)
    """
    (width, height), (across, down) = photo, trained
    scale = max(across / width, down / height)
    left, top = (width * scale - across) / 2, (height * scale - down) / 2
    cut = float(round(top)), float(round(left))
    return (float(height), float(width), *cut, float(down), float(across))


def in_words(sizes: Sequence[tuple[int, int]]) -> str:
    """Return how many photos are trained at each size, in the order of their first.

    >>> in_words([(512, 512), (576, 448), (512, 512)])
    '512x512 (2 photos), 576x448 (1 photo)'
    """
    counts = {size: sizes.count(size) for size in dict.fromkeys(sizes)}
    return ", ".join(
        f"{width}x{height} ({count} photo{'s' if count > 1 else ''})"
        for (width, height), count in counts.items()
    )

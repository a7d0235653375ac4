"""What is held out, in two halves: one chooses the best weights, the other is reported on.

Weights that are the best of many on some texts look better on these than on any others, so that
the report is about texts that had no part in the choice.
"""

import numpy as np
from numpy.typing import NDArray

MOST_SCORED = 64  # sequences that tell the perplexity at the end


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most so many places from 0 to `count`, evenly.

    >>> spread(10, 3).tolist(), spread(2, 3).tolist()
    ([0, 3, 6], [0, 1])
    """
    some = min(count, most)
    return np.arange(some) * count // some


def half(count: int, second: bool) -> NDArray[np.int64]:
    """Return every other place from 0 to `count`; one place is all of both halves.

    >>> half(5, False).tolist(), half(5, True).tolist(), half(1, True).tolist()
    ([0, 2, 4], [1, 3], [0])
    """
    return np.arange(count)[int(second) :: 2] if count > 1 else np.arange(count)

"""Differences of two ways that had the same seeds, and how sure they are."""

import math
import statistics
from collections.abc import Sequence

# of Student's distribution at 95 %, two-sided, by degrees of freedom from 1 on
_TIMES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def interval(own: Sequence[float], other: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of differences seed by seed, and half of its 95 % interval; None of one.

    Beyond ten seeds the interval is that of ten, which is a little wider than it needs to be.

    >>> interval([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])
    (1.0, 0.0)
    """
    apart = [a - b for a, b in zip(own, other, strict=True)]
    if len(apart) == 1:
        return apart[0], None
    times = _TIMES[min(len(apart) - 1, len(_TIMES)) - 1]
    return statistics.mean(apart), times * statistics.stdev(apart) / math.sqrt(len(apart))


def words(own: Sequence[float], other: Sequence[float], digits: int = 2) -> str:
    """Return the same in words.

    >>> words([1.0, 3.0], [1.0, 1.0])
    '+1.00 ± 12.71'
    """
    mean, half = interval(own, other)
    shown = f"{mean:+.{digits}f}"
    return shown if half is None else f"{shown} ± {half:.{digits}f}"

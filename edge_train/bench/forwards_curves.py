"""Curves of likeness against forwards: when one reaches a share of the exact gradient's gain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_train.rng import Key

_RESAMPLES = 2_000
_COVERED = 0.9  # of the interval


@dataclass(frozen=True)
class Curve:
    """Likeness after so many forwards, or seconds, in the order of training; the first is 0."""

    forwards: tuple[float, ...]
    likeness: tuple[float, ...]


def forwards_to(curve: Curve, wanted: float) -> float:
    """Return the forwards at which a curve first reaches a likeness, infinity where it never does.

    Between two measured points it is a straight line. One that falls back later has reached it.

    >>> forwards_to(Curve((0, 100, 200), (0.0, 0.5, 0.9)), 0.7)
    150.0
    """
    for (before, low), (after, high) in zip(
        zip(curve.forwards, curve.likeness, strict=True),
        zip(curve.forwards[1:], curve.likeness[1:], strict=True),
        strict=False,
    ):
        if low >= wanted:
            return float(before)
        if high >= wanted:
            return before + (after - before) * (wanted - low) / (high - low)
    return float(curve.forwards[-1]) if curve.likeness[-1] >= wanted else float("inf")


def wanted_of(exact: Sequence[Curve], share: float) -> float:
    """Return the likeness that is a share of the way from the start to the exact gradient's end.

    A share of the likeness itself would be reached before training: a word for anything has some.

    Args:
      exact: of one item, over seeds; ends are averaged, the start is the same.
    """
    start = exact[0].likeness[0]
    end = float(np.mean([curve.likeness[-1] for curve in exact]))
    return start + share * (end - start)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and a 90 % interval of it, by drawing runs again; infinity counts as large.

    >>> interval([5.0, 5.0, 5.0])
    (5.0, 5.0, 5.0)
    """
    given = np.sort(np.array(values))
    draws = Key(0, 0).generator("interval").integers(len(given), size=(_RESAMPLES, len(given)))
    # the lower middle: no half of infinity
    medians = np.sort(np.sort(given[draws], axis=1)[:, (len(given) - 1) // 2])
    edge = int(_RESAMPLES * (1 - _COVERED) / 2)
    middle = float(given[(len(given) - 1) // 2])
    return middle, float(medians[edge]), float(medians[-1 - edge])

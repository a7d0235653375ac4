"""A curve of any length in a few hundred numbers: neighbours are merged as it grows."""

import math
from array import array

MOST_POINTS = 240  # as wide as the page draws it


class Curve:
    """Values by step; each point stands for a stretch of `width` steps.

    Args:
      peak: a point is the largest value of its stretch; else their mean.
    """

    def __init__(self, peak: bool = False) -> None:
        self._peak = peak
        self.width = 1
        self._totals = array("d")
        self._counts = array("L")

    def add(self, step: int, value: float) -> None:
        """Add the value of a step; steps rise."""
        while step // self.width >= MOST_POINTS:
            self._halve()
        at = step // self.width
        while len(self._totals) <= at:
            self._totals.append(-math.inf if self._peak else 0.0)
            self._counts.append(0)
        self._put(at, value, 1)

    def _put(self, at: int, value: float, count: int) -> None:
        old = self._totals[at]
        self._totals[at] = max(old, value) if self._peak else old + value
        self._counts[at] += count

    def _halve(self) -> None:
        totals, counts = self._totals, self._counts
        self._totals, self._counts, self.width = array("d"), array("L"), 2 * self.width
        for at in range(-(-len(totals) // 2)):
            self._totals.append(-math.inf if self._peak else 0.0)
            self._counts.append(0)
            for old in range(2 * at, min(2 * at + 2, len(totals))):
                if counts[old]:
                    self._put(at, totals[old], counts[old])

    def points(self) -> list[list[float]]:
        """Return [step, value] in their order; a step is the middle of its stretch."""
        found = []
        for at, (total, count) in enumerate(zip(self._totals, self._counts, strict=True)):
            if count:
                value = total if self._peak else total / count
                middle = at * self.width + (self.width - 1) / 2
                found.append([middle, float(f"{value:.6g}")])
        return found

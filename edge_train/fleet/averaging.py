"""One value of many: means of what devices measured, some of which may lie."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["mean", "trimmed", "median"]
MeanOfWeights = Callable[[Sequence[Sequence[NDArray[np.float32]]]], list[NDArray[np.float32]]]
RULES: tuple[Rule, ...] = ("mean", "trimmed", "median")


@dataclass(frozen=True)
class Average:
    """How the numbers of devices become one of each.

    `mean` is what a single machine with the data of all would take; one device can move it
    anywhere. `trimmed` leaves out a share of the devices at each end, number by number, `median`
    all but the middle: fewer liars than that move them no further than honest devices reach (Yin et
    al. 2018, arXiv:1803.01498). Both are blind to weights.

    Args:
      rule: see above.
      trim: share of the devices that is left out at each end of `trimmed`.
    """

    rule: Rule = "mean"
    trim: float = 0.2

    def of(self, rows: Sequence[Sequence[float]], weights: Sequence[float] = ()) -> list[float]:
        """Return one number of each column.

        The mean of one device is what it measured, bit for bit, and no order of devices changes a
        bit of it.

        Args:
          rows: a row for each device, finite.
          weights: of the rows in a mean; none: all count the same.
        """
        columns = list(zip(*rows, strict=True))
        if self.rule == "median":
            return [statistics.median(column) for column in columns]
        if self.rule == "trimmed":
            cut = min(int(self.trim * len(rows)), (len(rows) - 1) // 2)
            columns = [tuple(sorted(column)[cut : len(rows) - cut]) for column in columns]
        elif len(set(weights)) > 1:
            total = math.fsum(weights)
            return [math.fsum(map(mul, weights, column)) / total for column in columns]
        return [math.fsum(column) / len(column) for column in columns]

    def of_weights(
        self, rows: Sequence[Sequence[NDArray[np.float32]]]
    ) -> list[NDArray[np.float32]]:
        """Return one matrix of each, number by number; all devices count the same.

        Args:
          rows: the matrices of each device, in the same order and shapes.
        """
        found = []
        for blocks in zip(*rows, strict=True):
            values = np.stack(blocks).astype(np.float64)
            if self.rule == "median":
                mean = np.median(values, axis=0)
            else:
                if self.rule == "trimmed":
                    cut = min(int(self.trim * len(rows)), (len(rows) - 1) // 2)
                    values = np.sort(values, axis=0)[cut : len(rows) - cut]
                mean = values.mean(axis=0)
            found.append(mean.astype(np.float32))
        return found


def weight_of(slope_check: Mapping[str, object] | None) -> float:
    """Return what the slopes of a device count: less where rounding is a share of them.

    Slopes at a radius and its double agree to a = 1 - sqrt(1.25 v / (1 + v)) where rounding is the
    share v of their variance (`estimators.slope_check`). The best weight in a mean is the inverse
    of the variance, here 1 / (1 + v), where devices see slopes of the same size. Never more than
    1, so that a device that lies about it gains nothing.

    >>> weight_of({"epsilon": 0.1, "rows": [{"epsilon": 0.1, "agreement": 1.0}]})
    1.0
    >>> round(weight_of({"epsilon": 0.1, "rows": [{"epsilon": 0.1, "agreement": 0.4}]}), 3)
    0.712
    """
    if slope_check is None:
        return 1.0
    rows = slope_check.get("rows")
    if not isinstance(rows, Sequence) or not rows or not isinstance(rows[-1], Mapping):
        return 1.0
    agreement = rows[-1].get("agreement")  # the last radius tried is the one that was taken
    if not isinstance(agreement, float) or not 0 <= agreement <= 1:
        return 1.0
    square = (1 - agreement) ** 2
    return 1.0 / (1.0 + square / (1.25 - square))

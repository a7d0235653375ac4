"""The worst mistakes of a classifier: chosen by how sure it was of a wrong answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

MOST = 8  # mistakes in a report


@dataclass(frozen=True)
class Mistake:
    """Sample `row` is of class `label` and was taken for `found`, with a probability."""

    row: int
    label: int
    found: int
    probability: float


def worst(labels: NDArray[Any], logits: Array, *, first_row: int = 0) -> list[Mistake]:
    """Return at most eight samples with a wrong answer, the most certain first.

    Args:
      labels: (samples,), the number of each sample's class.
      logits: (samples, classes).
      first_row: the number of the first sample, where these are a part of more.

    >>> found = worst(np.array([0, 1]), np.array([[0.0, 9.0], [0.0, 9.0]]))
    >>> [(one.row, one.label, one.found, round(one.probability, 3)) for one in found]
    [(0, 0, 1, 1.0)]
    """
    found = logits.argmax(axis=1)
    wrong = np.flatnonzero(found != labels)
    some = logits[wrong].astype(np.float64)
    sure = 1 / np.exp(some - some.max(axis=1, keepdims=True)).sum(axis=1)
    order = np.argsort(-sure, kind="stable")[:MOST]
    return [
        Mistake(first_row + int(row), int(labels[row]), int(found[row]), float(sure[place]))
        for place, row in zip(order, wrong[order], strict=True)
    ]


def furthest_off(numbers: Array, found: Array) -> list[dict[str, Any]]:
    """Return the eight samples whose number was missed by the most, as the journal keeps them.

    >>> [(one["row"], one["label"], one["found"]) for one in furthest_off(
    ...     np.array([1.0, 2.0]), np.array([1.5, 9.0]))]
    [(1, '2', '9'), (0, '1', '1.5')]
    """
    order = np.argsort(-np.abs(found - numbers), kind="stable")[:MOST]
    return [
        {"row": int(row), "label": f"{numbers[row]:.4g}", "found": f"{found[row]:.4g}"}
        for row in order
    ]


def merged(some: Sequence[Mistake], others: Sequence[Mistake]) -> list[Mistake]:
    """Return the eight most certain ones of both."""
    return sorted((*some, *others), key=lambda one: -one.probability)[:MOST]


def record(mistake: Mistake, names: Sequence[str], **more: object) -> dict[str, Any]:
    """Return a mistake as the journal keeps it, with classes by name."""
    return {
        "row": mistake.row,
        "label": names[mistake.label],
        "found": names[mistake.found],
        "probability": mistake.probability,
        **more,
    }

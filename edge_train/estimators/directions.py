"""Where the directions of a zeroth-order step come from: anywhere, or the span of a matrix."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key, direction

ISOTROPIC_SHARE = 0.1  # of the steps: what no matrix spans is learned in these


class Directions(Protocol):
    """Direction `z` of one query for one block: a pure function of what it is given."""

    def __call__(self, key: Key, query: int, name: str, shape: tuple[int, ...]) -> Array:
        """Return z of this shape, float32, whose squared length is on average its size."""
        ...


@dataclass(frozen=True, eq=False)
class Spanned:
    """Directions z = E u with u standard normal, scaled so that |z|^2 is d on average.

    Each row of a block is a vector of d numbers and gets a u of its own. `ISOTROPIC_SHARE` of the
    steps, drawn by the step's key, are isotropic in all blocks, as is every step of a block that
    has no matrix, and all steps from number `steps` on: what a span lacks is learned last. A
    direction is summed up number by number in the order of the rows, so that it has the same bits
    on every processor: those of the journal's scalars rebuild the step.

    Args:
      matrices: by block, (k, d) float32, the columns of E as rows; their lengths say how much each
        is drawn, their common scale is of no account.
      steps: the first steps of a run, which draw from the span; None: all do.
    """

    matrices: Mapping[str, Array]
    steps: int | None = None
    _rows: dict[str, Array] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name, matrix in self.matrices.items():
            length = float(np.sqrt(np.square(matrix.astype(np.float64)).sum()))
            if not (np.isfinite(length) and length > 0):
                raise ValueError(f"{name}: a matrix of length {length} spans nothing")
            scaled = matrix * (matrix.shape[1] ** 0.5 / length)
            self._rows[name] = np.ascontiguousarray(scaled, np.float32)

    def __call__(self, key: Key, query: int, name: str, shape: tuple[int, ...]) -> Array:
        """Return z of a block of vectors, (vectors, d)."""
        ended = self.steps is not None and key.step >= self.steps
        if name not in self._rows or ended or isotropic(key):
            return direction(key, query, name, shape)
        rows = self._rows[name]
        vectors, width = shape
        if width != rows.shape[1]:
            raise ValueError(f"{name}: vectors of {width} numbers, the matrix has {rows.shape[1]}")
        u = direction(key, query, name, (vectors, len(rows)))
        return np.stack([(rows * own[:, None]).sum(axis=0) for own in u])


def isotropic(key: Key) -> bool:
    """Return whether a step that has matrices does without."""
    return float(key.generator("isotropic").random()) < ISOTROPIC_SHARE

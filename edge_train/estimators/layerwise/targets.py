"""Fixed random projections of labels, and how the outputs of a block meet a target."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.protocols import Stage
from edge_train.rng import Key

DRAWS = ("rademacher", "gaussian", "uniform", "orthogonal")
VIEWS = ("pooled", "channel", "full", "every", "last")
_MOST_OF_A_RANGE = 0.99  # half widths from its middle; beyond it a tanh is stuck


@dataclass(frozen=True)
class Projections:
    """A fixed random matrix (classes, units) for every block, of root mean square `scale`.

    Entries have either sign; `targets` makes of them what the outputs of a block can reach.

    Made again from its key whenever it is needed, so it costs no memory; with `hold`, drawn once
    and kept in INT8 with one scale (exact for `rademacher`).

    Args:
      draw: distribution of the entries; `orthogonal` has orthogonal rows where units allow it.
      scale: root mean square of the entries.
      seed: of the run.

    >>> Projections("rademacher", 0.5, 1).matrix("0", 2, 3).shape
    (2, 3)
    """

    draw: str
    scale: float
    seed: int
    hold: bool = False
    _held: dict[str, tuple[NDArray[np.int8], np.float32]] = field(default_factory=dict)

    def matrix(self, name: str, classes: int, units: int) -> Array:
        """Return the projection of block `name`."""
        if not self.hold:
            return self._drawn(name, classes, units)
        if name not in self._held:
            exact = self._drawn(name, classes, units)
            step = np.float32(np.abs(exact).max() / 127)
            self._held[name] = np.rint(exact / step).astype(np.int8), step
        levels, step = self._held[name]
        held: Array = levels * step
        return held

    def targets(self, name: str, classes: int, units: int, bounds: tuple[float, float]) -> Array:
        """Return a target of every class that outputs within `bounds` can reach.

        Outputs without bounds get the projection as it is. Between two bounds its entries count
        from the middle, in half widths, and end a little inside. Above a lower bound alone they are
        the distances from it: magnitudes, or nothing and the full height in equal share for
        `rademacher`.
        """
        matrix = self.matrix(name, classes, units)
        low, high = bounds
        if math.isfinite(low) and math.isfinite(high):
            matrix = np.clip(matrix, -_MOST_OF_A_RANGE, _MOST_OF_A_RANGE)
            matrix *= np.float32((high - low) / 2)
            matrix += np.float32((high + low) / 2)
        elif math.isfinite(low):
            if self.draw == "rademacher":
                matrix = np.where(matrix > 0, np.float32(math.sqrt(2) * self.scale), np.float32(0))
            matrix = np.abs(matrix) + np.float32(low)
        return matrix

    def _drawn(self, name: str, classes: int, units: int) -> Array:
        generator = Key(self.seed, 0).generator("projection", name)
        shape = (classes, units)
        if self.draw == "rademacher":
            signs = generator.integers(0, 2, shape).astype(np.float32)
            return (2 * signs - 1) * np.float32(self.scale)
        if self.draw == "uniform":
            bound = math.sqrt(3) * self.scale
            return generator.uniform(-bound, bound, shape).astype(np.float32)
        matrix = generator.standard_normal(shape, np.float32)
        if self.draw == "orthogonal":
            long = matrix.T if classes <= units else matrix
            basis, triangle = np.linalg.qr(long)
            basis *= np.sign(np.diag(triangle)) * np.float32(math.sqrt(len(long)))
            matrix = basis.T if classes <= units else basis
        return np.ascontiguousarray(matrix * np.float32(self.scale), np.float32)


def view_of(block: Stage, wanted: str) -> str:
    """Return `wanted` where it fits the outputs of `block`, else the default for their kind.

    Measured defaults: the last row of a sequence, all numbers of a picture.
    """
    kinds = {2: ("last", "every"), 3: ("full", "pooled", "channel")}
    known = kinds.get(len(block.output_shape), (wanted,))
    return wanted if wanted in known else known[0]


def rows_of(outputs: Array, view: str) -> Array:
    """Return outputs of a block as rows that each meet a target of their label.

    A sample gives one row, or several: dense outputs are rows already; sequences give `every` row
    or the `last`; pictures the mean over all positions (`pooled`), each position (`channel`), or
    all numbers in one row (`full`).

    Args:
      outputs: (samples, units), (samples, rows, units) or (samples, height, width, channels).
      view: one of `VIEWS` that fits the kind of outputs; ignored for dense ones.

    Returns:
      (samples * rows per sample, units); rows of a sample stand together.
    """
    samples = len(outputs)
    if outputs.ndim == 2:
        return outputs
    if view == "last":
        return outputs[:, -1]
    if view == "pooled":
        mean: Array = outputs.mean(axis=(1, 2))
        return mean
    if view == "full":
        return outputs.reshape(samples, -1)
    return outputs.reshape(-1, outputs.shape[-1])


def spread(error: Array, shape: tuple[int, ...], view: str) -> Array:
    """Return an error at the rows as one at the outputs: the transpose of `rows_of`.

    >>> spread(np.array([[4.0]], np.float32), (1, 2, 1, 1), "pooled").ravel().tolist()
    [2.0, 2.0]
    """
    if len(shape) == 2:
        return error
    if view == "last":
        whole = np.zeros(shape, np.float32)
        whole[:, -1] = error
        return whole
    if view == "pooled":
        whole = np.empty(shape, np.float32)
        whole[:] = error[:, None, None, :] * np.float32(1 / (shape[1] * shape[2]))
        return whole
    return error.reshape(shape)


def repeated(labels: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return the label of every row."""
    return np.repeat(labels, rows // len(labels), axis=0)

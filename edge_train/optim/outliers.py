"""How many products of a layer's weights and inputs are far above the rest, layer by layer."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array

_NUMBERS_AT_ONCE = 1 << 18  # of a matrix, in float64


class Rows(Protocol):
    """Matrices of which some rows exist at a time, as `Parameters` has them."""

    def rows(self, name: str, which: slice) -> Array:
        """Return some rows of a matrix."""
        ...

    def for_transform(self, name: str) -> Array:
        """Return something of its shape."""
        ...


def outlier_share(
    weights: Rows, name: str, squares: NDArray[np.float64], times: float, transposed: bool
) -> float:
    """Return the share of A_ij = |W_ij| * |X_j| that is above `times` their mean.

    Args:
      weights: what has the matrix W, (outputs, inputs).
      name: of the matrix.
      squares: |X_j|^2 of every input over all tokens of some batches, (inputs,).
      times: M of the paper.
      transposed: the matrix is stored as (inputs, outputs).

    Memory: a few rows in float64. They are read twice, since the mean is that of all.

    Source: OWL (arXiv:2310.05175), of which OwLore (arXiv:2405.18380) takes its layers' odds.
    """
    lengths = np.sqrt(squares)

    def parts() -> Iterable[NDArray[np.float64]]:
        count, width = weights.for_transform(name).shape
        step = max(_NUMBERS_AT_ONCE // width, 1)
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            part = np.abs(weights.rows(name, rows), dtype=np.float64)
            part *= lengths[rows, None] if transposed else lengths
            yield part

    shape = weights.for_transform(name).shape
    numbers = shape[0] * shape[1]
    limit = times * sum(float(part.sum()) for part in parts()) / numbers
    return float(sum(int(np.count_nonzero(part > limit)) for part in parts()) / numbers)


def layer_scores(
    weights: Rows,
    inputs: Mapping[str, tuple[NDArray[np.float64], bool]],
    layer_of: Callable[[str], str | None],
    times: float,
) -> dict[str, float]:
    """Return the mean share of outliers of every layer's matrices.

    Args:
      weights: what has the matrices.
      inputs: squares of a matrix's inputs, and whether it is transposed; see `outlier_share`.
      layer_of: the layer that a matrix belongs to; those of none are left out.
      times: M of the paper.
    """
    shares = defaultdict(list)
    for name, (squares, transposed) in inputs.items():
        layer = layer_of(name)
        if layer is not None:
            shares[layer].append(outlier_share(weights, name, squares, times, transposed))
    return {layer: float(np.mean(found)) for layer, found in shares.items()}

"""What an adapter adds to the matrices of its base, and rows of a matrix with it added."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edge_train.arrays.factored import tiles
from edge_train.arrays.types import Array, Rows
from edge_train.formats.adapter import Adapter, names_of


@dataclass(frozen=True)
class Change:
    """What one layer computes beside its weight W: W + scale * second first.

    Attributes:
      first: (rank, inputs), LoRA's A.
      second: (outputs, rank), its B.
      scale: what their product is multiplied by.
      magnitude: (outputs,): of DoRA, the length that each row of the sum gets.
      transposed: the base stores W as (inputs, outputs).
    """

    first: Array
    second: Array
    scale: float
    magnitude: Array | None = None
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight, as the base stores it."""
        outputs, inputs = len(self.second), self.first.shape[1]
        return (inputs, outputs) if self.transposed else (outputs, inputs)

    def in_order(self, order: list[int]) -> "Change":
        """Return the change of a weight whose outputs stand in another order."""
        magnitude = None if self.magnitude is None else self.magnitude[order]
        return replace(self, second=self.second[order], magnitude=magnitude)

    def merged(self, weight: Rows) -> Iterator[Array]:
        """Yield the changed weight, some rows at a time.

        Source: LoRA (arXiv:2106.09685); DoRA (arXiv:2402.09353), lengths set as peft merges.

        Memory: two tiles in float32.
        """
        if self.magnitude is None:
            yield from (found for _, found in self._sums(weight))
        elif not self.transposed:
            for rows, found in self._sums(weight):
                yield found * (self.magnitude[rows] / np.linalg.norm(found, axis=1))[:, None]
        else:  # the length of a column is known when all rows were seen
            squares = np.zeros(len(self.second), np.float64)
            for _, found in self._sums(weight):
                squares += np.square(found, dtype=np.float64).sum(axis=0)
            factors = np.asarray(self.magnitude / np.sqrt(squares), np.float32)
            for _, found in self._sums(weight):
                yield found * factors

    def _sums(self, weight: Rows) -> Iterator[tuple[slice, Array]]:
        """Yield W + scale * second first as the base stores it, and which rows they are."""
        left, right = self.second, self.first
        if self.transposed:
            left, right = self.first.T, self.second.T
        for rows in tiles(self.shape):
            found = np.asarray((left[rows] * np.float32(self.scale)) @ right, np.float32)
            found += weight[rows]
            yield rows, found


def changes_of(adapter: Adapter, blocks: Mapping[str, Array]) -> dict[str, Change]:
    """Return what an adapter adds to each layer, by the path of the layer in the network."""
    found = {}
    for target in adapter.targets:
        first, second, lengths = (blocks.get(name) for name in names_of(target.path))
        assert first is not None and second is not None, "every target has both"
        found[target.path] = Change(first, second, adapter.scale, lengths, target.transposed)
    return found

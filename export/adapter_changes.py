"""What an adapter adds to the matrices of its base, and rows of a matrix with it added."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edge_train.arrays.factored import tiles
from edge_train.arrays.types import Array, Rows


@dataclass(frozen=True)
class Change:
    """What one layer computes beside its weight W: W + scale * second first.

    Attributes:
      first: (rank, inputs), LoRA's A.
      second: (outputs, rank), its B.
      scale: what their product is multiplied by.
      magnitude: (outputs,): of DoRA, the length that each row of the sum gets.
    """

    first: Array
    second: Array
    scale: float
    magnitude: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs, as of the weight."""
        return len(self.second), self.first.shape[1]

    def in_order(self, order: list[int]) -> "Change":
        """Return the change of a weight whose rows stand in another order."""
        magnitude = None if self.magnitude is None else self.magnitude[order]
        return Change(self.first, self.second[order], self.scale, magnitude)

    def merged(self, weight: Rows) -> Iterator[Array]:
        """Yield the changed weight, some rows at a time.

        Source: LoRA (arXiv:2106.09685); DoRA (arXiv:2402.09353), its rows scaled as peft merges.

        Memory: two tiles in float32.
        """
        for rows in tiles(self.shape):
            found = np.asarray(weight[rows], np.float32)
            found = found + (self.second[rows] * np.float32(self.scale)) @ self.first
            if self.magnitude is not None:
                lengths = np.linalg.norm(found, axis=1)
                found *= (self.magnitude[rows] / lengths)[:, None]
            yield found


Changes = Mapping[str, Change]  # by the path of a layer in the network

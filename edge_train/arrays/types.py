"""Types of arrays that cross the seams: blocks, states, batches, rows."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Batch = Mapping[str, NDArray[Any]]  # name -> array; carries every random draw of a step
Point = Mapping[str, Array]  # one value for every trainable block
State = dict[str, NDArray[Any]]  # what a transform remembers of one block


class Rows(Protocol):
    """A matrix, or a vector, that is read some rows at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sides."""
        ...

    def __getitem__(self, rows: slice) -> Array:
        """Return neighboring rows in float32."""
        ...


Block = NDArray[np.floating] | Rows
Blocks = Mapping[str, NDArray[np.floating]] | Iterable[tuple[str, Block]]

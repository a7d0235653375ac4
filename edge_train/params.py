"""Trainable blocks by name: float32 arrays that live outside the model."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import NonFinite


class Parameters(Mapping[str, NDArray[np.float32]]):
    """The trainable blocks of a runtime, read by name and changed only by `subtract` and `load`.

    Args:
      blocks: name -> array; each is copied to float32.
    """

    def __init__(self, blocks: Mapping[str, NDArray[np.floating]]) -> None:
        self._blocks = {name: np.array(block, np.float32) for name, block in blocks.items()}

    @classmethod
    def sharing(cls, blocks: Mapping[str, NDArray[np.float32]]) -> "Parameters":
        """Return parameters that live in the given arrays, not in copies of them."""
        parameters = cls({})
        parameters._blocks.update(blocks)
        return parameters

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    def subtract(self, name: str, update: NDArray[np.float32]) -> None:
        """Subtract `update` from block `name`, in place.

        Raises:
          NonFinite: `update` holds NaN or infinity; the block is left as it was.
        """
        if not np.isfinite(update).all():
            raise NonFinite(f"the update of block {name!r} is not finite")
        self._blocks[name] -= update

    def load(self, blocks: Mapping[str, NDArray[np.float32]]) -> None:
        """Overwrite every block, in place, with the one of the same name."""
        for name, block in self._blocks.items():
            np.copyto(block, blocks[name])

    def copy(self) -> dict[str, NDArray[np.float32]]:
        """Return every block as a fresh array."""
        return {name: block.copy() for name, block in self._blocks.items()}

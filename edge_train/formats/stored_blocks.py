"""What a model folder holds of the blocks of a network: found, and read when rows are asked for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.formats.tensor_file import StoredTensor

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Merged:
    """One block that files hold in pieces: an expert's matrices are tensors of their own there.

    Attributes:
      pieces: a tensor, and which experts and rows of the block it is.
    """

    shape: tuple[int, ...]
    pieces: tuple[tuple[StoredTensor, Slices], ...]

    @property
    def ndim(self) -> int:
        """How many sides it has."""
        return len(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all of it."""
        whole = np.empty(self.shape, np.float32)
        for tensor, at in self.pieces:
            whole[at] = np.asarray(tensor).reshape(whole[at].shape)
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return neighboring experts."""
        whole = self.__array__()
        return whole[rows]


Stored = StoredTensor | Merged


@dataclass(frozen=True)
class Source:
    """Where a block comes from.

    Attributes:
      value: its numbers.
      copies: further tensors of the files that hold the same ones: a tied head that is stored, too.
    """

    value: Stored
    copies: tuple[StoredTensor, ...] = ()


@dataclass(frozen=True)
class StoredNetwork:
    """What a network is made of, and where its folder holds it.

    Attributes:
      places: a block by the name of its parameter -> every place in the network that reads it.
      sources: where blocks come from, of those that are stored.
      buffers: numbers of the network that nothing trains, and where the folder holds them.
    """

    places: Mapping[str, tuple[str, ...]]
    sources: Mapping[str, Source]
    buffers: Mapping[str, Stored]

    @property
    def missing(self) -> tuple[str, ...]:
        """The blocks that no file holds."""
        return tuple(name for name in self.places if name not in self.sources)


def plain(sources: Mapping[str, Source]) -> dict[str, StoredTensor]:
    """Return the blocks that are one tensor of a file each."""
    values = {name: source.value for name, source in sources.items()}
    return {name: value for name, value in values.items() if isinstance(value, StoredTensor)}


def checked_values(value: NDArray[np.float32], name: str, folder: Path) -> NDArray[np.float32]:
    """Return the values of a block.

    Raises:
      ModelError: one is not finite.

    Memory: none beside the values.
    """
    if value.size and not (math.isfinite(value.min()) and math.isfinite(value.max())):
        raise ModelError(
            f"{folder}: tensor {name!r} holds values that are not finite (NaN or infinity), so "
            "nothing can be learned from it; take a copy of the model from before it was damaged."
        )
    return value

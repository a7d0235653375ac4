"""Weights that stay in their file: mapped read-only, read in place, released while in use."""

import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.formats.artifact import ArtifactTensor
from edge_train.runtimes.mapped_file import MappedFile


class MappedWeights:
    """One weight file of an artifact as read-only memory that can be let go while it is in use.

    Pages of a shared read-only mapping are always clean: dropping them loses nothing, and whoever
    reads them next gets the same bytes from the page cache or the disk. The engine's own mapping
    is private and writable, a piece per tensor: the kernel charges all of it as data although it
    is never written, and dropping a written page would lose it. So the file is mapped here, once,
    and the engine is handed views of it.

    Args:
      path: the file.
      tensors: what lies in it, from the manifest.

    Attributes:
      order: in which a forward pass reads them.

    Raises:
      ModelError: the file cannot be mapped, or is shorter than the manifest says.
    """

    order = "from the first byte of the file to the last"

    def __init__(self, path: Path, tensors: Sequence[ArtifactTensor]) -> None:
        self._lent: dict[str, Any] = {}
        self._tensors = [tensor for tensor in tensors if tensor.file == path.name]
        self.bytes = max((t.offset + t.bytes for t in self._tensors), default=0)
        try:
            with path.open("rb") as file:
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: cannot be mapped ({error}); export it again.") from error
        if len(mapping) < self.bytes:
            raise ModelError(
                f"{path}: {len(mapping)} bytes, the manifest says {self.bytes}. The copy is "
                "damaged or was edited; export it again."
            )
        self._file = MappedFile(mapping, len(mapping))

    def release(self, keep_bytes: int = 0) -> None:
        """Let go of resident pages behind the first `keep_bytes`."""
        self._file.release(keep_bytes)

    def resident_bytes(self) -> int | None:
        """Return how much of the file this process holds; None where nobody knows."""
        return self._file.resident_bytes()

    def lend(self, engine: Any) -> Mapping[str, Any]:
        """Return every tensor by name as a value of the engine's, backed by the mapping.

        A session keeps plain pointers to them: this object has to outlive it.
        """
        for tensor in self._tensors:
            values: NDArray[Any] = np.frombuffer(
                self._file.map, tensor.dtype, int(np.prod(tensor.shape)), tensor.offset
            )
            value = engine.OrtValue.ortvalue_from_numpy(values.reshape(tensor.shape))
            self._lent[tensor.name] = value
        return self._lent

"""Weights that stay in their file: mapped read-only, read in place, released while in use."""

import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.artifact import ArtifactTensor
from edge_train.errors import ModelError

_ENTRY = 8  # bytes a page in /proc/self/pagemap; the highest bit of the last says it is present
_PRESENT = 0x80


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

    Raises:
      ModelError: the file cannot be mapped, or is shorter than the manifest says.
    """

    def __init__(self, path: Path, tensors: Sequence[ArtifactTensor]) -> None:
        self._lent: dict[str, Any] = {}
        self._tensors = [tensor for tensor in tensors if tensor.file == path.name]
        self.bytes = max((t.offset + t.bytes for t in self._tensors), default=0)
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: cannot be mapped ({error}); export it again.") from error
        if len(self._map) < self.bytes:
            raise ModelError(
                f"{path}: {len(self._map)} bytes, the manifest says {self.bytes}. The copy is "
                "damaged or was edited; export it again."
            )

    def lend(self, engine: Any) -> Mapping[str, Any]:
        """Return every tensor by name as a value of the engine's, backed by the mapping.

        A session keeps plain pointers to them: this object has to outlive it.
        """
        for tensor in self._tensors:
            values: NDArray[Any] = np.frombuffer(
                self._map, tensor.dtype, int(np.prod(tensor.shape)), tensor.offset
            )
            value = engine.OrtValue.ortvalue_from_numpy(values.reshape(tensor.shape))
            self._lent[tensor.name] = value
        return self._lent

    def resident_bytes(self) -> int | None:
        """Return how much of the file this process holds; None where the kernel does not say."""
        first = np.frombuffer(self._map, np.uint8, 1).ctypes.data // mmap.PAGESIZE
        count = -(-len(self._map) // mmap.PAGESIZE)
        try:
            with Path("/proc/self/pagemap").open("rb", buffering=0) as table:
                table.seek(first * _ENTRY)
                flags = np.frombuffer(table.read(count * _ENTRY), np.uint8)[_ENTRY - 1 :: _ENTRY]
        except OSError:
            return None
        return int(np.count_nonzero(flags & _PRESENT)) * mmap.PAGESIZE

    def release(self, keep_bytes: int = 0) -> None:
        """Let go of every resident page behind the first `keep_bytes` of the file.

        A forward pass reads the file from one end to the other, over and over. For such a reader
        the pages worth keeping are a fixed head: keeping the last read ones instead would drop
        each page just before it is wanted again.
        """
        start = -(-keep_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        if start < len(self._map) and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start)

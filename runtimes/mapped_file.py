"""A file in memory whose pages can be let go while it is in use, and be read again."""

import mmap
from pathlib import Path

import numpy as np

_ENTRY = 8  # bytes a page in /proc/self/pagemap; the highest bit of the last says it is present
_PRESENT = 0x80


class MappedFile:
    """A shared mapping of a file.

    What is in the file is the truth: dropping pages loses nothing, and whoever reads them next
    gets the same bytes from the page cache or the disk. The system reads ahead of whoever reads
    in order, as far as it has memory for it.

    Attributes:
      map: the mapping; `numpy.frombuffer` and `torch.frombuffer` read it in place.
      bytes: how much of it is used.
    """

    def __init__(self, mapping: mmap.mmap, count: int) -> None:
        self.map, self.bytes = mapping, count
        if hasattr(mmap, "MADV_SEQUENTIAL"):
            mapping.madvise(mmap.MADV_SEQUENTIAL)

    def resident_bytes(self) -> int | None:
        """Return how much of the file this process holds; None where the kernel does not say."""
        first = np.frombuffer(self.map, np.uint8, 1).ctypes.data // mmap.PAGESIZE
        count = -(-self.bytes // mmap.PAGESIZE)
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
        if start < len(self.map) and hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED, start)

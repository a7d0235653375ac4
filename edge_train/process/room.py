"""How much memory what strangers wrote may take, where no cap is in force."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

with suppress(ImportError):  # on Windows, where nothing below is done
    import resource


@contextmanager
def room_for(more_bytes: int) -> Iterator[None]:
    """Let this process map so much more private memory and no further, where it is under no cap.

    An allocation past it fails with a MemoryError, as it does under a cap. Only on Linux.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA) if sys.platform == "linux" else None
    if before is None or before[0] != resource.RLIM_INFINITY:
        yield
        return
    pages = int(Path("/proc/self/statm").read_bytes().split()[5])
    limit_bytes = pages * os.sysconf("SC_PAGE_SIZE") + more_bytes
    hard = before[1]
    if hard != resource.RLIM_INFINITY:
        limit_bytes = min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)

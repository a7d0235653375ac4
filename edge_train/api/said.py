"""A file without a name, for what a process says: it lasts as long as somebody holds it."""

import os
import tempfile
import weakref

_AT_ONCE_BYTES = 1 << 16


class Said:
    """What was written by a process, or by this one; readable from any place, by any thread."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            self._file = os.dup(file.fileno())
        # not when this program ends: then runs are stopped, and what they said is read
        weakref.finalize(self, os.close, self._file).atexit = False

    def fileno(self) -> int:
        """Return the descriptor, for whoever starts a process."""
        return self._file

    def part(self, at: int) -> bytes:
        """Return some of what stands at a place, nothing at the end."""
        return os.pread(self._file, _AT_ONCE_BYTES, at)

    def text(self) -> str:
        """Return all of it; what is no UTF-8 is replaced."""
        whole = b""
        while part := self.part(len(whole)):
            whole += part
        return whole.decode("utf-8", "replace")

"""What the process tree holds, measured; freed memory given back."""

import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

try:
    import resource
except ImportError:  # Windows
    HAS_RESOURCE = False
else:
    HAS_RESOURCE = True

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_FIELDS = ("VmRSS", "VmHWM", "RssAnon")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BYTES = 2**20
_KEPT_BYTES = 1 << 25  # the most that glibc takes


@dataclass(frozen=True)
class Usage:
    """Memory held by the process tree, in bytes."""

    resident_bytes: int
    peak_bytes: int
    anon_bytes: int = 0


class Counters(NamedTuple):
    """What the kernel counts of this process now, in bytes.

    Attributes:
      resident: in memory.
      files: the part of it that is mapped from files.
      anon: the rest.
      data: private writable, touched or not; what `RLIMIT_DATA` bounds.
    """

    resident: int
    files: int
    anon: int
    data: int


class OwnCounters:
    """Counters of this process, from a file that stays open: a look at them is one system call."""

    def __init__(self) -> None:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> Counters:
        """Return what is counted now."""
        words = os.pread(self._statm, 128, 0).split()
        resident, files = int(words[1]) * PAGE_BYTES, int(words[2]) * PAGE_BYTES
        return Counters(resident, files, resident - files, int(words[5]) * PAGE_BYTES)

    def close(self) -> None:
        """Close the file; nothing is counted any more."""
        os.close(self._statm)


def code_bytes() -> int:
    """Return the bytes of code that this process has mapped, resident or not."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmExe", "VmLib")))


def measure(root: int | None = None) -> Usage:
    """Return resident, peak and anonymous bytes of a process and all its descendants.

    On Linux from the kernel's own counters; the peak of a tree is the sum of its processes'
    peaks, an upper bound. Elsewhere only the peak of this process is known, and the resident
    bytes are reported as that peak.

    Args:
      root: the process; this one if not given.
    """
    if not has_counters():
        peak = _own_peak()
        return Usage(peak, peak, 0)
    resident = peak = anon = 0
    for process in process_tree(root):
        counters = _status(process)
        resident += counters.get("VmRSS", 0)
        peak += counters.get("VmHWM", 0)
        anon += counters.get("RssAnon", 0)
    return Usage(resident, peak, anon)


def has_counters() -> bool:
    """Return whether the kernel says what this process holds: Linux with `/proc`."""
    return sys.platform == "linux" and os.path.exists("/proc/self/statm")  # noqa: PTH110


def _own_peak() -> int:
    """Return the most that this process held, 0 where nobody can tell."""
    if HAS_RESOURCE:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return _windows_peak()


def _windows_peak() -> int:
    """Return the largest working set of this process, from Windows; 0 elsewhere."""
    libraries = getattr(ctypes, "windll", None)
    if libraries is None:
        return 0
    sizes = (ctypes.c_size_t * 10)()  # PROCESS_MEMORY_COUNTERS: two words of 32 bits, then sizes
    size = ctypes.sizeof(sizes)
    process = ctypes.c_void_p(libraries.kernel32.GetCurrentProcess())
    if not libraries.psapi.GetProcessMemoryInfo(process, ctypes.byref(sizes), size):
        return 0
    return int(sizes[1])  # PeakWorkingSetSize


def others_bytes(root: int | None = None) -> int:
    """Return the resident bytes of a process and all its descendants, without this process.

    Not those of all less our own: what we grew by between the two readings would be missing, and
    while an engine reads its code that is megabytes.
    """
    own = os.getpid()
    others = (process for process in process_tree(root) if process != own)
    return sum(_status(process).get("VmRSS", 0) for process in others)


def process_tree(root: int | None = None) -> Iterator[int]:
    """Yield the ids of a process, this one if not given, and of all its descendants."""
    process = root or os.getpid()
    yield process
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from process_tree(int(child))
    except OSError:
        return  # it ended while we looked


def _status(process: int) -> dict[str, int]:
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return {}
    lines = (line.split(":") for line in text.splitlines())
    return {name: int(rest.split()[0]) * 1024 for name, rest in lines if name in _FIELDS}


def give_back_memory() -> None:
    """Return freed memory to the operating system.

    glibc keeps what is freed between two live blocks: without this, a model quantized layer by
    layer holds more than the float model it came from. Elsewhere does nothing.
    """
    trim = _of_the_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def _of_the_c_library(name: str) -> Any:
    """Return a function of the C library; None where it has none, or Windows, which has many."""
    if sys.platform == "win32":
        return None
    return getattr(ctypes.CDLL(None), name, None)


def map_large_blocks() -> None:
    """Have glibc map every large block by itself from now on, and unmap it when it is freed.

    By default the threshold rises to 32 MiB with the blocks that are freed, and those below it
    leave holes that stay resident. Costs a page fault for every page of every large block.
    """
    _large_from(_LARGE_BYTES)


def keep_freed_blocks() -> None:
    """Have glibc keep blocks that are freed, up to 32 MiB, for those that come next.

    By default it hands the end of its heap back as soon as some megabytes of it are free, and a
    computation in pieces of a megabyte gets every page anew: a third of its time.
    """
    _large_from(_KEPT_BYTES)


def _large_from(count: int) -> None:
    """Have glibc map blocks of so many bytes, and give back as many that are free at its end."""
    set_option = _of_the_c_library("mallopt")
    if set_option is not None:
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            set_option(option, count)

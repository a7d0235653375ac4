"""What the process tree holds, measured; and the guard that compares it with the cap."""

import ctypes
import errno
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import TrainingStopped
from edge_train.units import format_bytes

_FIELDS = ("VmRSS", "VmHWM", "RssAnon")
# How the engines say that an allocation failed; their errors share no class.
_SHORTAGE = re.compile(
    r"bad_alloc|can't allocate memory|[Cc]annot allocate memory|[Uu]nable to allocate"
    r"|[Ff]ailed to allocate|not enough memory|[Oo]ut of memory|can't start new thread"
    r"|failed to map segment|could not (create|execute) a (primitive|memory)"
)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BYTES = 2**20
_ASKED = re.compile(r"(?:allocate|buffer of size|size:) (\d+(?:\.\d+)?) ?([KMG]iB)?")


@dataclass(frozen=True)
class Usage:
    """Memory held by the process tree, in bytes."""

    resident_bytes: int
    peak_bytes: int
    anon_bytes: int = 0


def is_shortage(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, says that an allocation failed.

    >>> is_shortage(MemoryError()), is_shortage(RuntimeError("std::bad_alloc"))
    (True, True)
    >>> is_shortage(RuntimeError("shapes differ"))
    False
    """
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if _SHORTAGE.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def bytes_asked(error: BaseException) -> int:
    """Return how many bytes an allocation that failed asked for, 0 where the error does not say.

    >>> bytes_asked(RuntimeError("you tried to allocate 4096 bytes. Error code 12"))
    4096
    >>> bytes_asked(MemoryError("Unable to allocate 1.50 MiB for an array"))
    1572864
    """
    match = _ASKED.search(str(error))
    if match is None:
        return 0
    return int(float(match[1]) * 2 ** (10 * " KMG".index((match[2] or " ")[0])))


def shortage(error: BaseException, held_bytes: int) -> str:
    """Return what did not fit, as part of a sentence.

    >>> shortage(RuntimeError("you tried to allocate 45600000 bytes"), 300_000_000)
    '45.6 MB more did not fit beside 300 MB in use'
    """
    asked = bytes_asked(error)
    more = f"{format_bytes(asked)} more" if asked else "an allocation"
    return f"{more} did not fit beside {format_bytes(held_bytes)} in use"


def machine_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the memory of this machine, None where it is not known."""
    try:
        return int(meminfo.read_text().split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None


def measure(root: int | None = None) -> Usage:
    """Return resident, peak and anonymous bytes of a process and all its descendants.

    On Linux from the kernel's own counters; the peak of a tree is the sum of its processes'
    peaks, an upper bound. Elsewhere only the peak of this process is known, and the resident
    bytes are reported as that peak.

    Args:
      root: the process; this one if not given.
    """
    if sys.platform != "linux":
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return Usage(peak, peak, 0)
    resident = peak = anon = 0
    for process in process_tree(root):
        counters = _status(process)
        resident += counters.get("VmRSS", 0)
        peak += counters.get("VmHWM", 0)
        anon += counters.get("RssAnon", 0)
    return Usage(resident, peak, anon)


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
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def map_large_blocks() -> None:
    """Have glibc map every large block by itself from now on, and unmap it when it is freed.

    By default the threshold rises to 32 MiB with the blocks that are freed, and those below it
    leave holes that stay resident. Costs a page fault for every page of every large block.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            set_option(option, _LARGE_BYTES)


class Guard:
    """Measures at every step and stops the run when it holds more than the cap.

    Args:
      cap_bytes: the most the run may hold; None means measured but unlimited.
      device_bytes: the most held on a discrete accelerator as its engine counts, 0 on unified
        memory. Where it is not zero, the cap is about device memory.
      host_cap_bytes: the most the host side may hold beside a discrete accelerator.
      root: the process whose tree is measured; this one if not given.
      driver_bytes: the most held there as the driver counts, context included; 0 where it does
        not. The larger of the two counts.
    """

    def __init__(
        self,
        cap_bytes: int | None,
        device_bytes: Callable[[], int],
        host_cap_bytes: int | None = None,
        root: int | None = None,
        driver_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self.cap_bytes = cap_bytes
        self._device_bytes = device_bytes
        self._host_cap_bytes = host_cap_bytes
        self._driver_bytes = driver_bytes
        self._device_peak = 0
        self._root = root

    def usage(self) -> Usage:
        """Return what is held now, without judging it."""
        usage = measure(self._root)
        device = max(self._device_bytes(), self._driver_bytes())
        if device == 0:
            return usage
        self._device_peak = max(self._device_peak, device)
        return Usage(device, self._device_peak, device)

    def check(self, step: int) -> Usage:
        """Return what is held now.

        Raises:
          TrainingStopped: the peak is above the cap.
        """
        usage = self.usage()
        who = "the run, on the GPU," if self._device_peak else "the run"
        _compare(step, who, usage.peak_bytes, "--mem", self.cap_bytes)
        if self._host_cap_bytes is not None:
            host = measure(self._root).peak_bytes
            _compare(step, "the host side", host, "--host-mem", self._host_cap_bytes)
        return usage


def _compare(step: int, who: str, peak: int, flag: str, cap: int | None) -> None:
    if cap is not None and peak > cap:
        raise TrainingStopped(
            f"step {step}: {who} held {format_bytes(peak)}, the cap is {format_bytes(cap)}; "
            f"stopped. Give it a larger {flag}, or --quant int8."
        )

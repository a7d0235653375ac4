"""What the NVIDIA driver says is held on GPUs: contexts and libraries included, not only tensors.

An allocator knows what it gave away. The driver also counts the context of a process, the code of
its kernels and the workspaces of libraries, half a gigabyte or more. It is asked through its own
library, NVML, which comes with every driver; nothing has to be installed for it.

Source: NVML API reference, `nvmlDeviceGetComputeRunningProcesses` and `nvmlDeviceGetMemoryInfo`.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from edge_train.memory.measure import process_tree

_LIBRARY = "libnvidia-ml.so.1"
_MOST_PROCESSES = 256  # on one GPU; more are counted by the growth of what the GPU holds
_NOT_KNOWN = 2**64 - 1  # what a driver that does not count by process answers
BY_PROCESS = "the driver, by process"
BY_GROWTH = "the driver, by what GPUs hold more of since the run began (other programs included)"


class _Process(ctypes.Structure):
    """`nvmlProcessInfo_v2_t`."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used_bytes", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _Memory(ctypes.Structure):
    """`nvmlMemory_t`."""

    _fields_ = (
        ("total_bytes", ctypes.c_ulonglong),
        ("free_bytes", ctypes.c_ulonglong),
        ("used_bytes", ctypes.c_ulonglong),
    )


class GpuMemory:
    """Bytes that a process tree holds on all GPUs of this machine, by what the driver knows.

    In a container the driver may not know our process ids. Then it is what all GPUs hold more than
    when this was made, which is too much where another program grows.

    Attributes:
      peak_bytes: the most that a sample found.
      source: `BY_PROCESS` or `BY_GROWTH`, whichever the last sample was made with.
      gpus: how many there are.
    """

    def __init__(self, nvml: Any, root: int | None = None) -> None:
        """Begin to count for the tree of process `root`, by default this one.

        Raises:
          OSError: the driver does not answer, or there is no GPU.
        """
        self.peak_bytes, self.source = 0, BY_GROWTH
        self._nvml, self._root = nvml, root
        self._list = next(
            (
                getattr(nvml, name)
                for name in (
                    "nvmlDeviceGetComputeRunningProcesses_v3",
                    "nvmlDeviceGetComputeRunningProcesses_v2",
                )
                if hasattr(nvml, name)
            ),
            None,
        )
        count = ctypes.c_uint()
        _ask(nvml.nvmlInit_v2)
        _ask(nvml.nvmlDeviceGetCount_v2, ctypes.byref(count))
        self._gpus = [ctypes.c_void_p() for _ in range(count.value)]
        for index, gpu in enumerate(self._gpus):
            _ask(nvml.nvmlDeviceGetHandleByIndex_v2, ctypes.c_uint(index), ctypes.byref(gpu))
        self.gpus = len(self._gpus)
        if not self._gpus:
            raise OSError("the driver knows no GPU")
        self._before = self._held_by_all()

    def sample(self) -> int:
        """Return the bytes held now; 0 where the driver stopped answering."""
        found = 0
        with suppress(OSError):
            ours = set(process_tree(self._root))
            mine = [used for pid, used in self._processes() if pid in ours and used != _NOT_KNOWN]
            if mine:
                self.source = BY_PROCESS
            if self.source == BY_PROCESS:
                found = sum(mine)
            else:
                found = max(self._held_by_all() - self._before, 0)
        self.peak_bytes = max(self.peak_bytes, found)
        return found

    def free_bytes(self) -> int:
        """Return what the GPU with the most memory free has; 0 where the driver does not say."""
        found = [0]
        for gpu in self._gpus:
            memory = _Memory()
            with suppress(OSError):
                _ask(self._nvml.nvmlDeviceGetMemoryInfo, gpu, ctypes.byref(memory))
                found.append(memory.free_bytes)
        return max(found)

    def most(self) -> int:
        """Return the most that was held, now included."""
        self.sample()
        return self.peak_bytes

    def _processes(self) -> Iterator[tuple[int, int]]:
        """Yield process id and bytes of everything that computes on a GPU."""
        if self._list is None:
            return
        for gpu in self._gpus:
            count = ctypes.c_uint(_MOST_PROCESSES)
            found = (_Process * _MOST_PROCESSES)()
            with suppress(OSError):
                _ask(self._list, gpu, ctypes.byref(count), found)
                yield from ((one.pid, one.used_bytes) for one in found[: count.value])

    def _held_by_all(self) -> int:
        held = 0
        for gpu in self._gpus:
            memory = _Memory()
            _ask(self._nvml.nvmlDeviceGetMemoryInfo, gpu, ctypes.byref(memory))
            held += memory.used_bytes
        return held


def open_gpu_memory(
    root: int | None = None, load: Callable[[str], Any] = ctypes.CDLL
) -> GpuMemory | None:
    """Return what asks the driver, or None where there is no NVIDIA driver or no GPU.

    Args:
      root: the process whose tree is counted; this one if not given.
      load: loads a shared library; another one in tests.
    """
    try:
        return GpuMemory(load(_LIBRARY), root)
    except (OSError, AttributeError):  # an old driver lacks some of the functions
        return None


def counts_gpus() -> bool:
    """Return whether the driver counts what is held on GPUs here."""
    return open_gpu_memory() is not None


def describe(load: Callable[[str], Any] = ctypes.CDLL) -> str:
    """Return where bytes held on a GPU are known from, a line for people."""
    found = open_gpu_memory(load=load)
    if found is None:
        return (
            f"gpu memory: no NVIDIA driver answers ({_LIBRARY}); torch's allocator counts what a "
            "run holds on another GPU"
        )
    return f"gpu memory: the driver's own count for {found.gpus} GPU(s), contexts included"


def _ask(function: Callable[..., int], *arguments: Any) -> None:
    status = function(*arguments)
    if status:
        raise OSError(f"NVML status {status}")

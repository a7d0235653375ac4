"""What a run may take of a card, and what it holds there.

A discrete card has memory of its own: a cap is about that, by the driver's count (`memory/gpu.py`),
and torch's allocator is the wall. An integrated one (Jetson) computes in the memory of the machine:
a cap is about that memory, what the card's allocator took of it included. Nothing of this file has
run on a Jetson.
"""

from contextlib import suppress

import torch

from edge_train.errors import InputError
from edge_train.memory.gpu import open_gpu_memory
from edge_train.memory.measure import measure
from edge_train.units import format_bytes

# Kernels are loaded when they are first called, outside of torch's allocator; an estimate, which
# `make test-gpu` compares with the driver's count.
_KERNEL_BYTES = 150_000_000


def is_integrated(device: torch.device) -> bool:
    """Return whether a device is a card that computes in the memory of the machine."""
    return device.type == "cuda" and bool(torch.cuda.get_device_properties(device).is_integrated)


def limit_memory(device: torch.device, cap_bytes: int | None) -> None:
    """Have torch's allocator take no more of a card than a cap leaves; more fails as out of memory.

    Off the cap go what the driver counts of this process beside the allocator (the context), and
    kernels that are loaded later; of an integrated card what this process holds as a program.

    Raises:
      InputError: nothing is left.
    """
    if device.type != "cuda" or cap_bytes is None:
        return
    total = torch.cuda.get_device_properties(device).total_memory
    beside = measure().resident_bytes if is_integrated(device) else context_bytes(device)
    beside += _KERNEL_BYTES
    if cap_bytes <= beside:
        raise InputError(
            f"--mem is {format_bytes(cap_bytes)}, and computing on the GPU takes about "
            f"{format_bytes(beside)} before anything of a model is there; give it more, or use "
            "--device cpu."
        )
    share = min(1.0, (cap_bytes - beside) / total)
    torch.cuda.set_per_process_memory_fraction(share, device)


def context_bytes(device: torch.device) -> int:
    """Return what the driver counts of this process beside torch's allocator; 0 if it does not.

    Makes the context of this process, if there is none yet.
    """
    driver = open_gpu_memory()  # before the context: where processes are not known, growth counts
    torch.cuda.synchronize(device)
    if driver is None:
        return 0
    return max(driver.sample() - torch.cuda.memory_reserved(device), 0)


class CardMemory:
    """Counts what this process holds on a card, from when it is made; 0 on the host.

    Attributes:
      integrated: whether that is memory of the machine.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._free_bytes = device, 0
        self._peak_bytes = 0
        self.integrated = is_integrated(device)
        if device.type == "cuda":  # but for what torch's allocator took already
            self._free_bytes = torch.cuda.mem_get_info(device)[0]
            self._free_bytes += torch.cuda.memory_reserved(device)

    def peak_bytes(self) -> int:
        """Return the most that torch's allocator held of a card's own memory.

        Or what is less free there than at the start, if that is more: workspaces of libraries, and
        what other programs took. The context was there before; the driver's own count
        (`memory/gpu.py`) has it. Of a card that is gone, the last answer.
        """
        if self._device.type != "cuda" or self.integrated:
            return 0
        with suppress(RuntimeError):  # of a card that is gone
            taken = self._free_bytes - torch.cuda.mem_get_info(self._device)[0]
            found = max(int(torch.cuda.max_memory_reserved(self._device)), taken)
            self._peak_bytes = max(self._peak_bytes, found)
        return self._peak_bytes

    def shared_bytes(self) -> int:
        """Return the most that an integrated card's allocator held of the machine's memory.

        The kernel counts none of it as memory of this process.
        """
        if not self.integrated:
            return 0
        with suppress(RuntimeError):
            found = int(torch.cuda.max_memory_reserved(self._device))
            self._peak_bytes = max(self._peak_bytes, found)
        return self._peak_bytes

    def give_back(self) -> None:
        """Give back what torch's allocator keeps of what was freed."""
        if self._device.type == "cuda":
            with suppress(RuntimeError):  # of a card that is gone
                torch.cuda.empty_cache()

"""The device that torch computes on: which one a word means, what a run may take of it and holds.

Parameters and the state of an optimizer stay on the host, whatever computes: a checkpoint, an
update and a journal are then the same everywhere. A card holds what a pass reads and makes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edge_train.arrays.types import Array
from edge_train.errors import InputError

HOST = torch.device("cpu")


def pick_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means here.

    Raises:
      InputError: `cuda` was named and there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {name!r}; expected auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' was asked for, but torch finds none; use --device cpu.")
    found = "cuda" if name == "auto" and torch.cuda.is_available() else name
    return torch.device("cpu" if found == "auto" else found)


def limit_memory(device: torch.device, cap_bytes: int | None) -> None:
    """Have torch's allocator take no more of a card than a cap; more fails as out of memory."""
    if device.type == "cuda" and cap_bytes is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap_bytes / total), device)


class CardMemory:
    """Counts what this process holds on a card, from when it is made; 0 on the host."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._free_bytes = device, 0
        if device.type == "cuda":  # but for what torch's allocator took already
            self._free_bytes = torch.cuda.mem_get_info(device)[0]
            self._free_bytes += torch.cuda.memory_reserved(device)

    def peak_bytes(self) -> int:
        """Return the most that torch's allocator held.

        Or what is less free there than at the start, if that is more: workspaces of libraries, and
        what other programs took. The context was there before; the driver's own count
        (`memory/gpu.py`) has it.
        """
        if self._device.type != "cuda":
            return 0
        taken = self._free_bytes - torch.cuda.mem_get_info(self._device)[0]
        return max(int(torch.cuda.max_memory_reserved(self._device)), taken)

    def give_back(self) -> None:
        """Give back what torch's allocator keeps of what was freed."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def on_host(values: Tensor) -> Array:
    """Return the numbers of a tensor; those of the host itself, not a copy."""
    found: Array = values.detach().cpu().numpy()
    return found


def move_buffers(network: nn.Module, device: torch.device) -> None:
    """Put what a network holds beside its parameters on a device."""
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Compute attention in here so that the same call gives the same bits, on a card, too.

    Fused kernels of a card add up the gradients of keys in the order in which its parts are done.
    Matrices of probabilities take length^2 numbers for each head, of one layer at a time.
    """
    if device.type == "cpu":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    context: Any = sdpa_kernel(SDPBackend.MATH)
    with context:
        yield

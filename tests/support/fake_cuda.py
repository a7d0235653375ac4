"""A CUDA that answers what a run asks of it before it computes; nothing can be put on it."""

from types import SimpleNamespace
from typing import Any

import torch

GB = 10**9


class FakeCuda:
    """Stands for `torch.cuda` from `install` on.

    Attributes:
      total, free, reserved, integrated, capability: what it answers, in bytes.
      shares: of its memory that torch's allocator was limited to, in order.
      gone: whether it stopped answering.
    """

    def __init__(self, total: int = 8 * GB, *, integrated: bool = False) -> None:
        self.total, self.free, self.reserved, self.integrated = total, total, 0, integrated
        self.capability = (9, 0)
        self.shares: list[float] = []
        self.gone = False

    def install(self, monkeypatch: Any) -> "FakeCuda":
        answers = {
            "is_available": lambda: True,
            "synchronize": lambda device=None: self._answer(None),
            "get_device_properties": lambda device: SimpleNamespace(
                total_memory=self.total, is_integrated=int(self.integrated)
            ),
            "get_device_capability": lambda device=None: self.capability,
            "set_per_process_memory_fraction": lambda share, device: self.shares.append(share),
            "mem_get_info": lambda device=None: self._answer((self.free, self.total)),
            "memory_reserved": lambda device=None: self._answer(self.reserved),
            "max_memory_reserved": lambda device=None: self._answer(self.reserved),
            "empty_cache": lambda: self._answer(None),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        return self

    def _answer(self, value: Any) -> Any:
        if self.gone:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return value

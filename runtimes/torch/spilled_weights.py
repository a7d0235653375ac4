"""The weights of a torch module in a temporary file instead of memory, moved there layer by layer.

What a model folder holds is not what a quantized module computes with, so its own files cannot be
mapped. Every layer is written out as soon as it is loaded and quantized, and read in place from
then on, block by block; pages that memory has no room for are let go and read again.
"""

import mmap
import os
import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_train.errors import InputError
from edge_train.runtimes.mapped_file import MappedFile
from edge_train.units import format_bytes

_ALIGNMENT = 64  # bytes, as torch's own memory
_ON_DISK = Path("/var/tmp")  # noqa: S108 - the other folder for such files often is memory


class SpilledWeights:
    """A file without a name, gone when the process ends, that weights are moved into.

    Args:
      most_bytes: of all weights that will come, at most; only what comes takes room on the disk.

    Attributes:
      bytes: of what came so far.
      order: in which a forward pass reads them.
    """

    order = "block by block"

    def __init__(self, most_bytes: int) -> None:
        folder = os.environ.get("TMPDIR") or (str(_ON_DISK) if _ON_DISK.is_dir() else None)
        self._where = folder or tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(max(most_bytes, mmap.PAGESIZE))
            self._storage = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._storage)
        self._file = MappedFile(mmap.mmap(self._storage, 0), 0)

    @property
    def bytes(self) -> int:
        """How many bytes came so far."""
        return self._file.bytes

    def release(self, keep_bytes: int = 0) -> None:
        """Let go of resident pages behind the first `keep_bytes`."""
        self._file.release(keep_bytes)

    def resident_bytes(self) -> int | None:
        """Return how much of the file this process holds; None where nobody knows."""
        return self._file.resident_bytes()

    def move(self, layer: nn.Module) -> None:
        """Move the parameters that a layer has of its own into the file, in place."""
        for name, parameter in list(layer.named_parameters(recurse=False)):
            parts = getattr(parameter, "__tensor_flatten__", None)
            if parts is None:
                setattr(layer, name, nn.Parameter(self._moved(parameter), requires_grad=False))
            else:
                self._move_parts(parameter)

    def _move_parts(self, tensor: Tensor) -> None:
        """Move what a quantized tensor is made of: its integers, packed or not, and scales."""
        names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]  # of subclasses only
        for name in names:
            part = getattr(tensor, name)
            if hasattr(part, "__tensor_flatten__"):
                self._move_parts(part)
            else:
                setattr(tensor, name, self._moved(part))

    def _moved(self, tensor: Tensor) -> Tensor:
        start = -(-self.bytes // _ALIGNMENT) * _ALIGNMENT
        count = tensor.numel() * tensor.element_size()
        if not count:
            return tensor
        try:  # a page that cannot be written later would end the process
            if hasattr(os, "posix_fallocate"):  # not on every system
                os.posix_fallocate(self._storage, start, count)
        except OSError as error:
            raise InputError(
                f"--lean moves the weights into a file in {self._where}, which has no room for "
                f"{format_bytes(count)} more ({error.strerror}); set TMPDIR to a folder on a "
                "larger disk, or leave --lean out."
            ) from error
        raw = torch.frombuffer(self._file.map, dtype=torch.uint8, count=count, offset=start)
        moved = raw.view(tensor.dtype).view(tensor.shape)
        moved.copy_(tensor.detach())
        self._file.bytes = start + count
        return moved

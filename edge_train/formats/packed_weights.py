"""Weights in few bits, as other libraries pack them: named and refused before a run begins."""

import re
from collections.abc import Sequence
from pathlib import Path

from edge_train.errors import ModelError
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.weight_files import Config

_PACKED_FLOATS = re.compile(r"F[468]_|F4|F6|F8")
_INTEGERS = ("I4", "U4", "I8", "U8", "I32", "U32", "I64")
# Integer tensors that are weights; masks and positions of older files are none.
_WEIGHT = re.compile(
    r"(^|[._:])(weight|qweight|weight_packed|packed_weight|blocks|qdata|int_data|_data|qzeros)$"
)
_ROWS = 2  # sides of a weight at least
# What only one library calls a tensor, for folders whose configuration names no way of packing.
_NAMES = (
    (re.compile(r"\.quant_state\.bitsandbytes__|\.SCB$"), "bitsandbytes"),
    (re.compile(r"\.g_idx$"), "gptq"),
    (re.compile(r"\.qweight$"), "gptq or awq"),
    (re.compile(r"[._:](qdata|tensor_impl[.:].*)$"), "torchao"),
    (re.compile(r"\.weight_packed$"), "compressed-tensors"),
    (re.compile(r"\._data$"), "quanto"),
    (re.compile(r"_blocks$"), "mxfp4"),
)


def refuse_packed(folder: Path, config: Config, files: Sequence[TensorFile]) -> None:
    """Refuse a folder whose weights were packed: bitsandbytes, GPTQ, AWQ, torchao, quanto, FP8.

    Args:
      folder: of the configuration, for a message about it.
      files: nothing but their headers is read.

    Raises:
      ModelError: it names the file, the way of packing, and the type of the first such tensor.
    """
    settings = config.get("quantization_config")
    way = None
    if isinstance(settings, dict):
        way = str(settings.get("quant_method") or settings.get("quant_algo") or "an unnamed way")
    for file in files:
        for name, entry in file.entries.items():
            floats = _PACKED_FLOATS.match(entry.dtype) is not None
            integers = entry.dtype in _INTEGERS and _WEIGHT.search(name) is not None
            if floats or (integers and len(entry.shape) >= _ROWS):
                by = way or _told_by_names(file)
                raise ModelError(
                    f"{file.path}: holds {entry.dtype} weights{by and f' packed by {by}'}, first "
                    f"{name!r}, and those are not trained; name the bfloat16, float16 or float32 "
                    "version of this model (--quant packs weights here, where a task offers it)."
                )
    if way is not None and files:
        raise ModelError(
            f"{folder}: its config.json says that its weights are packed by {way}, but they are "
            "plain floats; take quantization_config out of config.json, or download the plain "
            "version of this model."
        )


def _told_by_names(file: TensorFile) -> str:
    """Return the library that calls tensors like this; empty where the names are plain."""
    for pattern, way in _NAMES:
        if any(pattern.search(name) for name in file.entries):
            return way
    return ""

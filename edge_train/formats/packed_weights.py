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
_WEIGHT = re.compile(r"(^|[._])(weight|qweight|weight_packed|blocks|qdata|_data|qzeros)$")
_ROWS = 2  # sides of a weight at least


def refuse_packed(folder: Path, config: Config, files: Sequence[TensorFile]) -> None:
    """Refuse a folder whose weights were packed: by bitsandbytes, GPTQ, AWQ, quanto, as FP8.

    Args:
      files: nothing but their headers is read.

    Raises:
      ModelError: it names the way of packing, or the type of the first such tensor.
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
                by = f" (packed by {way})" if way else ""
                raise ModelError(
                    f"{folder}: holds {entry.dtype} weights{by}, first {name!r}, and those are "
                    "not trained; name the bfloat16, float16 or float32 version of this model "
                    "(--quant int8 or int4 packs it here, for a language model)."
                )
    if way is not None and files:
        raise ModelError(
            f"{folder}: its config.json says that its weights are packed by {way}, but they are "
            "plain floats; take quantization_config out of config.json, or download the plain "
            "version of this model."
        )

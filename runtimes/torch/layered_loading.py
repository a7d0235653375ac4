"""Load a torch module layer by layer, so that the float model never exists whole."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from edge_train.errors import ModelError
from edge_train.formats.tensor_file import TensorFile
from edge_train.memory.measure import give_back_memory
from edge_train.quant import quants
from edge_train.runtimes.torch.int4_weights import freeze_int4
from edge_train.runtimes.torch.spilled_weights import SpilledWeights

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PACKED_COLUMNS = 16  # torch's int8 x bfloat16 kernel crashes unless these divide the inputs


def load_layers(
    module: nn.Module,
    files: Sequence[TensorFile],
    *,
    dtype: torch.dtype,
    device: torch.device,
    quant: str = "none",
    rename: Callable[[str], str] = str,
    spill: SpilledWeights | None = None,
) -> None:
    """Give every parameter of a module built on the meta device its value, in place.

    Reads one layer, casts it, quantizes its weight if it is a Linear or Conv2d, goes on. Bit for
    bit what optimum-quanto's `quantize` and `freeze` make of the loaded model, except that with
    int8 and bfloat16 on a CPU a Linear whose inputs are no multiple of 16 stays as it is (torch's
    kernel crashes on it; published models have none). Norms, biases and embeddings stay in
    `dtype`. Nothing requires a gradient. Of int4, `int4_weights` says how they are read.

    Args:
      module: every parameter on the meta device; quantized layers replace theirs in it.
      files: safetensors files that hold the parameters between them.
      quant: `none`, `int8` or `int4` (groups of at most 128 along the inputs).
      spill: where every layer's weights go as soon as it is loaded.
      rename: applied to names in files and in the module, so that two spellings meet.

    Raises:
      ModelError: a tensor is missing or has another shape than the configuration says.

    Memory:
      The loaded module plus a few copies of its largest layer; with `spill` those alone.
    """
    source = {rename(name): (file, name) for file in files for name in file.entries}
    with torch.no_grad():
        for path in [path for path, _ in module.named_modules()]:
            layer = module.get_submodule(path)
            for name, parameter in list(layer.named_parameters(recurse=False)):
                full_name = f"{path}.{name}" if path else name
                stored = _read(source, rename(full_name), parameter.shape, files[0])
                loaded = nn.Parameter(stored.to(device=device, dtype=dtype), requires_grad=False)
                setattr(layer, name, loaded)
                del stored, loaded
            if quant != "none" and isinstance(layer, nn.Linear | nn.Conv2d):
                packed = quant == "int8" and dtype == torch.bfloat16 and device.type == "cpu"
                parent, _, name = path.rpartition(".")
                setattr(module.get_submodule(parent), name, _quantize(layer, quant, packed))
                layer = module.get_submodule(path)
            if spill is not None:
                spill.move(layer)
                spill.release()
            del layer
            give_back_memory()


def _read(
    source: Mapping[str, tuple[TensorFile, str]], name: str, shape: torch.Size, first: TensorFile
) -> Tensor:
    """Return one tensor in its stored type, in memory of its own (aligned, not mapped)."""
    if name not in source:
        raise ModelError(
            f"{first.path}: no tensor {name!r}, which the configuration asks for; copy or "
            "download the model again."
        )
    file, stored_name = source[name]
    entry = file.entries[stored_name]
    if entry.shape != tuple(shape) or entry.dtype not in _DTYPES:
        raise ModelError(
            f"{file.path}: tensor {stored_name!r} is {entry.dtype} {list(entry.shape)}, the "
            f"configuration asks for a float {list(shape)}; copy or download the model again."
        )
    raw = torch.empty(entry.nbytes, dtype=torch.uint8)
    file.read_into(stored_name, raw.numpy())
    return raw.view(_DTYPES[entry.dtype]).view(entry.shape)


def _quantize(layer: nn.Linear | nn.Conv2d, quant: str, packed: bool) -> nn.Module:
    """Return the quantized, frozen layer; `layer` is left without parameters.

    Args:
      packed: a Linear will run on torch's int8 x bfloat16 kernel, which crashes on odd widths
        (such a layer is returned as it is) and refuses strided inputs (they are copied).
    """
    from optimum.quanto.nn import quantize_module

    packed = packed and isinstance(layer, nn.Linear)
    if packed and layer.weight.shape[1] % _PACKED_COLUMNS:
        return layer
    quantized: Any = quantize_module(layer, weights=quants.get(quant).torch_type)
    for name, _ in list(layer.named_parameters()):
        setattr(layer, name, None)
    if quant == "int4":
        freeze_int4(quantized)
    else:
        quantized.freeze()
    quantized.requires_grad_(False)
    if packed:
        quantized.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous())
    return cast(nn.Module, quantized)

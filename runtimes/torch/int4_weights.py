"""4-bit weights as optimum-quanto makes them, read by torch alone: no compiler is ever started.

quanto reads its packed weights with an extension of its own, in C++ or CUDA, that it compiles when
the first layer computes: minutes, memory of the run, and a failure where there is no compiler. Here
its tensors are kept, but read by ordinary operations.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


def freeze_int4(layer: Any) -> None:
    """Replace the float weight of a quanto layer by its 4-bit integers, in place.

    The integers, scales and shifts are bit for bit those of quanto's `freeze`, except for float16
    on a CUDA device: quanto reorders them there for a kernel that it would have to compile; we keep
    the order of every other device.

    Args:
      layer: a `QLinear` or `QConv2d` of weights `qint4` that is not frozen.

    Memory:
      A few float copies of the layer while it runs.
    """
    from optimum.quanto import quantize_weight

    bits, group = layer.weight_qtype, layer.weight_group_size
    scale, shift = layer.optimizer(layer.weight, qtype=bits, axis=0, group_size=group)
    weight = quantize_weight(
        layer.weight,
        qtype=bits,
        axis=0,
        scale=scale,
        shift=shift,
        group_size=group,
        optimized=layer.weight.dtype == torch.bfloat16,  # torch has a kernel of its own for these
    )
    kind: Any = type(weight)
    weight.__class__ = _read_by_torch(kind)
    layer.weight = nn.Parameter(weight, requires_grad=False)


@cache
def _read_by_torch(kind: Any) -> type:
    """Return a subclass of one of quanto's packed tensors that is read by `_values`.

    Made on demand, since quanto takes memory that a run without it need not have.

    Args:
      kind: `WeightQBitsTensor`, or the one in the order of torch's 4-bit x bfloat16 kernel. That is
        read for gradients alone, and an identity of (columns, columns) bfloat16 goes through it.
    """
    from optimum.quanto import WeightQBitsTensor

    class ReadByTorch(kind):  # type: ignore[misc]  # quanto has no types
        def dequantize(self) -> Tensor:
            return _values(self if kind is WeightQBitsTensor else self.weight_qbits_tensor())

        @staticmethod
        def __tensor_unflatten__(parts: Any, about: Any, size: Any, stride: Any) -> Any:
            made = kind.__tensor_unflatten__(parts, about, size, stride)
            made.__class__ = ReadByTorch  # torch detaches a tensor by taking it apart
            return made

    return ReadByTorch


def _values(weight: Any) -> Tensor:
    """Return integers * scale - shift of a `WeightQBitsTensor`, in the shape of the weight.

    Bit for bit what quanto's `dequantize` returns.

    Memory:
      The float weight of one layer, and half a byte for each of its values: one of two halves of
      the integers.
    """
    packed, scale = weight._data._data, weight._scale
    rows = len(packed)
    values = torch.empty((2 * rows, *packed.shape[1:]), dtype=scale.dtype, device=scale.device)
    values[:rows] = packed & 15
    values[rows:] = packed >> 4
    values = values[: len(weight._data)]  # an odd number of rows was filled up
    values *= scale
    values -= weight._shift
    return values.reshape(weight.shape)

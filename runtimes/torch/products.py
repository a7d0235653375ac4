"""Products of activations with weights, by the type that the weights come in.

Weights in float32 are multiplied in float32. With weights in bfloat16 the activations are rounded
to it, too, products are added up in float32 inside of torch, and the sum is rounded once more; what
leaves is float32. Processors with products of bfloat16 take half the time for it, and others longer
than for float32.
"""

import os

import torch
from torch import Tensor

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# On a processor oneDNN makes code for every shape of a product of bfloat16 and keeps that of the
# last 1,024, and torch keeps it once more. Chats bring other shapes with every batch: after 600 of
# them 450 MB are held, with so many kept 50 to 70. To make it again takes 0.4 ms.
_SHAPES_KEPT = "32"
_KEEPERS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def products_in(dtype: str) -> torch.dtype:
    """Return torch's type of this name, before the first product in it."""
    if dtype == "bfloat16":
        for name in _KEEPERS:
            os.environ.setdefault(name, _SHAPES_KEPT)
    return _TYPES[dtype]


def product_into(out: Tensor, values: Tensor, weights: Tensor) -> None:
    """Write values @ weights into `out`; values are in the type of the weights."""
    if weights.dtype == torch.float32:
        torch.mm(values, weights, out=out)
    else:
        out.copy_(values @ weights)


def product_added(sums: Tensor, values: Tensor, weights: Tensor) -> None:
    """Add values @ weights to `sums`; values are in the type of the weights."""
    if weights.dtype == torch.float32:
        sums.addmm_(values, weights)
    else:
        sums.add_(values @ weights)

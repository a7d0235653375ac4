"""Products of activations with weights, by the type that the weights come in.

Weights in float32 are multiplied in float32. With weights in bfloat16 the activations are rounded
to it, too, products are added up in float32 inside of torch, and the sum is rounded once more; what
leaves is float32. Processors with products of bfloat16 take half the time for it, and others longer
than for float32.
"""

import torch
from torch import Tensor

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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

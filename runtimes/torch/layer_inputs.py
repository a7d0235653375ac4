"""How long the inputs of linear layers are, number by number, over the tokens of a batch."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Found = tuple[str, tuple[NDArray[np.float64], bool]]


def inputs_of(
    layers: Iterable[tuple[str, nn.Module, bool]],
    run: Callable[[], object],
    counted: Callable[[Tensor], Tensor] = lambda inputs: inputs,
) -> Iterator[Found]:
    """Yield the block of every layer that was called, and the squares of its inputs, (inputs,).

    Args:
      layers: name of the block, layer, and whether its block is (inputs, outputs).
      run: computes a forward pass.
      counted: the rows (tokens, inputs) that count: not those of padding.
    """
    sums: dict[str, Tensor] = {}
    layers = list(layers)

    def hook(name: str) -> Callable[..., None]:
        def see(_: nn.Module, given: tuple[Any, ...]) -> None:
            lengths = torch.linalg.vector_norm(counted(given[0]).flatten(0, -2), dim=0)
            sums[name] = sums.get(name, torch.zeros(())) + lengths.double().square().cpu()

        return see

    hooks = [layer.register_forward_pre_hook(hook(name)) for name, layer, _ in layers]
    try:
        with torch.no_grad():
            run()
    finally:
        for one in hooks:
            one.remove()
    for name, _, transposed in layers:
        if name in sums:
            yield name, (sums[name].numpy(), transposed)

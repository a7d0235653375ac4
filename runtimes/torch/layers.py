"""What layers a torch network is made of, for files that other libraries read."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from edge_train.protocols import Layer


def layers_of(network: nn.Module, blocks: Mapping[str, str]) -> list[Layer]:
    """Return every module that holds parameters of its own, in the network's order.

    Args:
      blocks: the full name of a parameter -> the block of the run that it is; tied ones share one.
    """
    found = []
    for path, module in network.named_modules():
        own = [name for name, _ in module.named_parameters(recurse=False)]
        if own:
            held = {name: blocks[f"{path}.{name}".lstrip(".")] for name in own}
            found.append(Layer(path, _kind(module), held))
    return found


def _kind(module: nn.Module) -> Any:
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    return "conv1d" if type(module).__name__ == "Conv1D" else "other"

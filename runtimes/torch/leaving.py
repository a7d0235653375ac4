"""How gradients leave the network: one block at a time, as soon as it is complete."""

from collections.abc import Callable

from torch import Tensor

from edge_train.protocols import Apply
from edge_train.runtimes.torch.card import on_host


def leaving(name: str, apply: Apply) -> Callable[[Tensor], None]:
    """Return a hook for a parameter whose gradient is complete: it hands it over and drops it."""

    def hook(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        apply(name, on_host(gradient))

    return hook

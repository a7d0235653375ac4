"""Dropout whose masks are a function of the samples of a step, not of torch's global generator."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edge_train.arrays.types import Batch
from edge_train.errors import ModelError

_LARGEST_SEED = 2**63
_STRIDE = 0x9E3779B97F4A7C15  # odd, so that no two calls of a few billion share a seed
_OTHERS = (
    *(nn.functional.dropout1d, nn.functional.dropout2d, nn.functional.dropout3d),
    *(nn.functional.alpha_dropout, nn.functional.feature_alpha_dropout),
    *(torch.rand, torch.rand_like, torch.randn, torch.bernoulli),
    *(Tensor.bernoulli, Tensor.bernoulli_, Tensor.uniform_),
)


class Dropping(TorchFunctionMode):
    """While it is entered, `dropout` draws the mask of each sample from a number of that sample.

    So a mask does not depend on which samples are computed together, and the same calls in the same
    order make the same masks again: `count` is set back before a layer is computed once more.

    Args:
      seeds: one number for each sample of the batch, below 2^62.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self._seeds = [int(seed) for seed in seeds]
        self.count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is nn.functional.dropout:
            return self._dropped(*args, **(kwargs or {}))
        if func in _OTHERS:
            raise ModelError(
                "this network draws other random numbers in training than those of dropout "
                f"({func.__name__}), which could not be drawn again; leave out --dropout."
            )
        return func(*args, **(kwargs or {}))

    def the_same_again(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Return a part of the network that draws the same at every call from now on.

        A layer is computed again inside of a backward pass, where torch has left every mode.
        """
        start, calls = self.count, 0

        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                return forward(*args, **kwargs)
            after, self.count = self.count, start
            try:
                with self:
                    return forward(*args, **kwargs)
            finally:
                self.count = after

        return run

    def _dropped(
        self,
        input: Tensor,  # noqa: A002 - torch's word
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        if not training or p == 0.0:
            return input
        samples = len(self._seeds)
        if input.shape[0] % samples:
            raise ModelError(
                f"this network drops in {input.shape[0]} rows at once, which are not those of "
                f"{samples} samples; leave out --dropout."
            )
        shift = self.count * _STRIDE
        self.count += 1
        shape = (input.shape[0] // samples, *input.shape[1:])
        kept = torch.cat(
            [
                torch.rand(
                    shape, generator=torch.Generator().manual_seed((seed + shift) % _LARGEST_SEED)
                )
                >= p
                for seed in self._seeds
            ]
        )
        return input * kept.to(input.device) / (1 - p)  # drawn on the host: the same everywhere


class Draws:
    """Where the layers of a network find how dropout is drawn in this pass; None: not at all."""

    def __init__(self) -> None:
        self.mode: Dropping | None = None

    @contextmanager
    def of(self, network: nn.Module, batch: Batch) -> Iterator[None]:
        """Train with the dropout that a batch asks for, forward and back."""
        if "dropout" not in batch:
            yield
            return
        network.train()
        self.mode = Dropping(batch["dropout"].tolist())
        try:
            with self.mode:
                yield
        finally:
            self.mode = None
            network.eval()

"""The exact gradient with recomputation: the honest baseline."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from edge_train.arrays.factored import Gradient
from edge_train.arrays.types import Array, Batch
from edge_train.errors import NonFinite
from edge_train.protocols import Apply, Estimate, GradientRuntime, Objective, Share
from edge_train.rng import Key


@dataclass(frozen=True)
class Backprop:
    """One forward and one backward pass per sample, activations recomputed block by block.

    Args:
      micro_batch: samples that are differentiated at once; None or more than there are: all. Else
        every block's gradient is emitted as one `Share` for each part of the batch.
    """

    micro_batch: int | None = None

    def estimate(
        self, runtime: GradientRuntime, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Emit the gradient of the mean loss.

        Raises:
          NonFinite: a loss was not finite; parts before it were emitted, but not the last.
        """
        if self.micro_batch is None:
            losses = _finite(runtime.backward(batch, apply))
        else:
            losses = self._in_parts(self.micro_batch, runtime, batch, apply)
        return Estimate(
            loss=float(losses.astype(np.float64).mean()),
            scalars=(),
            forwards=losses.size,
            backwards=losses.size,
        )

    def _in_parts(self, size: int, runtime: GradientRuntime, batch: Batch, apply: Apply) -> Array:
        count = len(next(iter(batch.values())))
        losses = np.empty(count, np.float32)
        for start in range(0, count, size):
            end = min(start + size, count)
            part = {name: values[start:end] for name, values in batch.items()}
            emit = partial(_emit, apply, (end - start) / count, end == count)
            losses[start:end] = _finite(runtime.backward(part, emit if size < count else apply))
        return losses


def _emit(apply: Apply, share: float, last: bool, name: str, gradient: Gradient) -> None:
    apply(name, Share(gradient, share, last))


def _finite(losses: Array) -> Array:
    if not np.isfinite(losses).all():
        raise NonFinite("a loss of the step is not finite")
    return losses
